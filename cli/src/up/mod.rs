//! `pegel up`: an aggregator and an agent on this machine, as child processes with generated configuration.
//!
//! All that it makes is in one directory, readable, and what it starts are the programs that a real installation
//! runs: `pki/`, `aggregator.yaml`, `agent.yaml`, `aggregator.log`, `agent.log`, `agent/` (the spool).
//! The children are in process groups of their own, so that Ctrl-C reaches them through here, agent first: it hands
//! over what it holds while the aggregator still takes it.

mod child;
mod files;

use crate::cli::UpArgs;
use crate::client::StatusClient;
use crate::paint::Paint;
use anyhow::{Context as _, Result, anyhow, bail};
use child::{Child, Ended};
use files::Layout;
use pegel_runtime::exit::Exit;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// How long a program may take until it listens: a cold disk, a busy machine.
const START: Duration = Duration::from_secs(20);
/// How long until data should flow: a handshake, one reading, one batch, some spare. After it `up` says what it sees
/// and goes on waiting.
const FLOW: Duration = Duration::from_secs(30);
/// How often is looked. A person watches.
const LOOK: Duration = Duration::from_millis(100);
/// How long a program may take to end: the agent's bound (10 s) and a little.
const END: Duration = Duration::from_secs(15);

/// Where `up` keeps its things: `$XDG_STATE_HOME/pegel`, or `~/.local/state/pegel`, or `.pegel` here.
pub fn default_state_dir() -> PathBuf {
    let home = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    home("XDG_STATE_HOME")
        .or_else(|| home("HOME").map(|home| home.join(".local/state")))
        .map_or_else(|| PathBuf::from(".pegel"), |state| state.join("pegel"))
}

/// Runs until Ctrl-C, or until a child ends.
pub fn run(args: &UpArgs) -> ExitCode {
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(up(args)));
    if let Err(error) = &result
        && let Some(ended) = error.downcast_ref::<Ended>()
        && ended.code == Some(i32::from(Exit::Configuration.code()))
    {
        eprintln!("pegel: {error:#}");
        return Exit::Configuration.into();
    }
    pegel_runtime::exit::report("pegel", &result)
}

async fn up(args: &UpArgs) -> Result<()> {
    let paint = Paint::for_stdout();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (agent_program, aggregator_program) = (beside("pegel-agent")?, beside("pegel-aggregator")?);
    let state_dir = args.state_dir.clone().unwrap_or_else(default_state_dir);
    let layout = Layout::prepare(&state_dir, args)?;

    println!("{}", paint.faint(&format!("state in {}", layout.dir.display())));
    let mut aggregator = layout.start_aggregator(&aggregator_program, args)?;
    let started = async {
        let agents_at = aggregator.address(&layout.agents_address_file, START).await?;
        let page_at = aggregator.address(&layout.page_address_file, START).await?;
        anyhow::Ok((agents_at, page_at))
    };
    let (agents_at, page_at) = tokio::select! {
        started = started => started?,
        _ = interrupt.recv() => return stop(None, aggregator).await,
        _ = terminate.recv() => return stop(None, aggregator).await,
    };
    let mut agent = layout.start_agent(&agent_program, agents_at, args)?;
    let url = format!("http://{}", reachable(page_at));
    let client = StatusClient::new(&url)?;

    tokio::select! {
        told = tell(&client, &url, &layout, args, paint) => told?,
        ended = agent.ended() => return fail(ended, aggregator).await,
        ended = aggregator.ended() => return fail(ended, agent).await,
        _ = interrupt.recv() => return stop(Some(agent), aggregator).await,
        _ = terminate.recv() => return stop(Some(agent), aggregator).await,
    }
    tokio::select! {
        ended = agent.ended() => fail(ended, aggregator).await,
        ended = aggregator.ended() => fail(ended, agent).await,
        _ = interrupt.recv() => stop(Some(agent), aggregator).await,
        _ = terminate.recv() => stop(Some(agent), aggregator).await,
    }
}

/// Waits until data flows, and says where to look.
async fn tell(client: &StatusClient, url: &str, layout: &Layout, args: &UpArgs, paint: Paint) -> Result<()> {
    let began = Instant::now();
    let mut complained = false;
    let output = loop {
        match flowing(client, layout).await {
            Ok(Flow::Arrives(output)) => break output,
            seen if !complained && began.elapsed() > FLOW => {
                complained = true;
                let state = match seen {
                    Ok(Flow::Held(why)) => why,
                    Ok(_) => "the agent has not connected yet".to_owned(),
                    Err(error) => format!("{error:#}"),
                };
                println!("No data after {} s: {state}", FLOW.as_secs());
                println!("Still waiting. Look at {url} and the logs in {}", layout.dir.display());
            }
            _ => {}
        }
        tokio::time::sleep(LOOK).await;
    };
    println!("\n  {}   {}\n", paint.bold("pegel is up:"), paint.bold(url));
    let node = &layout.identity.node;
    println!("The metrics of {node} arrived after {:.1} s.", began.elapsed().as_secs_f64());
    match &layout.write_url {
        Some(write_url) => {
            println!("Writing to {write_url}: {output}.");
            if args.out_of_order_window.is_none() {
                println!("To survive outages of more than an hour, set in Prometheus' configuration");
                println!("  storage: {{tsdb: {{out_of_order_time_window: 30h}}}}");
                println!("and start with --out-of-order-window 30h; what is older is refused, and counted.");
            }
        }
        None => println!("Kept in memory only; to keep it: pegel up --prometheus http://HOST:9090"),
    }
    match &layout.loki_url {
        Some(loki) => println!("This machine's logs go to {loki}; as they come: {url}/tail"),
        None if layout.collects_logs(args) => println!("This machine's logs as they come: {url}/tail"),
        None if args.no_logs => {}
        None => println!("Logs are not collected; for them add --loki http://HOST:3100"),
    }
    println!("\nNext:");
    println!("  pegel status{0}\n  pegel why {1}{0}\n  pegel tail{0}", flag_for(url), layout.identity.node);
    println!("{}", paint.faint("Ctrl-C stops both."));
    if let Some(file) = &args.url_file {
        files::write(file, &format!("{url}\n"))?;
    }
    Ok(())
}

/// What is seen of this machine's agent.
enum Flow {
    /// Nothing yet.
    Nothing,
    /// Its metrics do not get through; why.
    Held(String),
    /// They do; what the output says of itself.
    Arrives(String),
}

/// Looks whether metrics arrive and the backend takes them. The books would tell exactly, but come twice a minute.
async fn flowing(client: &StatusClient, layout: &Layout) -> Result<Flow> {
    let (tenant, node) = (layout.identity.tenant.as_str(), layout.identity.node.as_str());
    let fleet = client.fleet().await?;
    let agent = fleet.agents.iter().find(|agent| agent.row.tenant == tenant && agent.row.node == node);
    let Some(agent) = agent else { return Ok(Flow::Nothing) };
    Ok(match fleet.outputs.iter().find(|output| !output.ok) {
        Some(output) => Flow::Held(format!("output {}: {}", output.name, output.detail)),
        None if agent.row.live.is_empty() => Flow::Held(agent.row.headline.clone()),
        None => Flow::Arrives(fleet.outputs.first().map(|output| output.detail.clone()).unwrap_or_default()),
    })
}

/// The flag that other commands need to find this page; none where it is where they look anyway.
fn flag_for(url: &str) -> String {
    if url == "http://127.0.0.1:4434" { String::new() } else { format!(" --aggregator-url {url}") }
}

/// Stops both, the agent first.
async fn stop(agent: Option<Child>, aggregator: Child) -> Result<()> {
    println!("\nstopping");
    if let Some(agent) = agent {
        agent.end(END).await?;
    }
    aggregator.end(END).await
}

/// One child has ended by itself: stops the other one and says so.
async fn fail(ended: Ended, other: Child) -> Result<()> {
    let stopped = other.end(END).await;
    if let Err(error) = stopped {
        eprintln!("pegel: {error:#}");
    }
    Err(anyhow!(ended))
}

/// A program next to this one.
fn beside(name: &str) -> Result<PathBuf> {
    let here = std::env::current_exe().context("cannot find out where this program is")?;
    let found = here.parent().unwrap_or(Path::new(".")).join(name);
    if !found.is_file() {
        bail!("cannot find {name} next to this program ({}); build or install it there", found.display());
    }
    Ok(found)
}

/// An address to connect to, for one that was listened on.
fn reachable(address: std::net::SocketAddr) -> std::net::SocketAddr {
    let mut address = address;
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() {
            std::net::Ipv4Addr::LOCALHOST.into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    address
}
