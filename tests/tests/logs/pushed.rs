//! What others push: a producer piped into the agent, a named pipe, syslog. What a killed agent had taken from them and
//! not stored is lost, and the books say how much.

use crate::world::{SETTLE_WITHIN, loki_setup, outputs};
use pegel_tests::loki::Loki;
use pegel_tests::pegel::{Agent, AgentSetup, Aggregator, Books, Site};
use pegel_tests::process::Process;
use pegel_tests::{binary, eventually, let_run, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// What a pipe holds by default (pipe(7)).
const PIPE_BYTES: usize = 64 << 10;
/// Two looks at a number that has to stand still.
const STILL: Duration = Duration::from_secs(2);

struct World {
    loki: Loki,
    aggregator: Aggregator,
    agent: Agent,
    site: Site,
}

impl World {
    /// With `inputs` in YAML, of the site's directory; the agent does not run yet.
    async fn start(inputs: impl FnOnce(&Path) -> String, more: &str) -> Option<Self> {
        let site = Site::new();
        let loki = Loki::start_with(&site.dir().join("loki"), &loki_setup()).await?;
        let aggregator = site.aggregator_with("one", &outputs(&loki.url(), Some(&loki.url()))).await;
        let logs = format!("{{inputs: [{}]{more}}}", inputs(site.dir()));
        let setup = AgentSetup { logs: Some(logs), ..AgentSetup::default() }.buffer("{segment: 1MiB}");
        let agent = site.agent("web-1", &[aggregator.address()], setup);
        Some(Self { loki, aggregator, agent, site })
    }

    /// The numbers of an input's lines, in Loki's order.
    async fn numbers(&self, input: &str) -> Vec<u64> {
        let streams = self.loki.entries(&format!("{{job=\"{input}\"}}"), "tests").await;
        let mut entries: Vec<(i64, String)> = streams.into_values().flatten().collect();
        entries.sort();
        let number = |line: &str| line.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("a number");
        entries.iter().map(|(_, line)| number(line)).collect()
    }

    /// Waits until nothing is on its way and Loki shows what arrived.
    async fn settled(&self, input: &str, least: u64) -> (Books, Vec<u64>) {
        let books = eventually("all is settled", SETTLE_WITHIN, || async {
            let books = self.agent.books_of("logs").await?;
            (books.collected >= least && books.in_front + books.spooled == 0).then_some(books)
        })
        .await;
        let numbers = eventually("Loki shows what arrived", SETTLE_WITHIN, || async {
            let numbers = self.numbers(input).await;
            (numbers.len() as u64 >= books.arrived()).then_some(numbers)
        })
        .await;
        (books, numbers)
    }
}

fn line(number: u64) -> String {
    format!("line {number} of those that are pushed: {:016x}\n", number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// `producer | pegel-agent run`.
async fn piped(world: &World) -> Child {
    let _ = std::fs::remove_file(world.site.dir().join("web-1/admin.address"));
    let log = std::fs::File::options().create(true).append(true).open(world.site.dir().join("piped.log"));
    let mut command = Command::new(binary("pegel-agent"));
    command.arg("run").arg("--config").arg(world.agent.config()).stdin(Stdio::piped());
    command.stdout(Stdio::null()).stderr(log.expect("a log"));
    let child = command.spawn().expect("the agent starts");
    eventually("the agent answers", Duration::from_secs(30), || world.agent.status()).await;
    child
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_piped_into_the_agent_loses_what_a_kill_takes_and_it_is_counted() {
    let mut rng = StdRng::seed_from_u64(seed());
    let Some(world) = World::start(|_| "{name: piped, stdin: true}".to_owned(), "").await else { return };
    let (mut next, mut kills) = (0, 0);
    loop {
        let mut child = piped(&world).await;
        let mut stdin = child.stdin.take().expect("a pipe");
        let last = kills == 3;
        let until = if last { next + 5_000 } else { u64::MAX };
        let writer = tokio::task::spawn_blocking(move || {
            // In pieces that a pipe takes whole, so that no line is half in the next life.
            while next < until && stdin.write_all(line(next).as_bytes()).is_ok() {
                next += 1;
            }
            (next, stdin)
        });
        if last {
            let (written, stdin) = writer.await.expect("it writes");
            next = written;
            drop(stdin);
            break end(&world, child, next, kills).await;
        }
        let_run(Duration::from_millis(rng.random_range(100..800))).await;
        child.kill().expect("it is killed");
        child.wait().expect("it ends");
        kills += 1;
        next = writer.await.expect("it writes").0;
    }
}

/// The producer has ended, and the agent goes on; then it is asked to end.
async fn end(world: &World, mut child: Child, written: u64, kills: u64) {
    eventually("the pipe has ended", SETTLE_WITHIN, || async {
        (world.agent.status().await?["logs"]["pipes"][0]["ended"] == true).then_some(())
    })
    .await;
    let (books, numbers) = world.settled("piped", 5_000).await;
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "each once and in order");
    assert!(
        numbers.ends_with(&(written - 5_000..written).collect::<Vec<_>>()),
        "nothing of the last life is lost"
    );
    let lost = written - numbers.len() as u64;
    let in_pipes = kills * (PIPE_BYTES / line(written).len() + 1) as u64;
    println!("{written} lines, {kills} kills: {lost} lost, {} counted; {books:?}", books.lost_in_crash);
    assert!(lost <= books.lost_in_crash + in_pipes, "{lost} of {written} are lost, {books:?}");
    let pid = rustix::process::Pid::from_raw(child.id() as i32).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it is asked to end");
    let status = tokio::task::spawn_blocking(move || child.wait()).await.expect("it waits").expect("it ends");
    assert!(status.success(), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_of_a_named_pipe_come_and_go_and_what_the_kernel_holds_survives_the_agent() {
    let inputs =
        |dir: &Path| format!("{{name: fifo, fifo: {{path: {}/pipe, mode: \"0620\"}}}}", dir.display());
    let Some(mut world) = World::start(inputs, "").await else { return };
    world.agent.start().await;
    let pipe = world.site.dir().join("pipe");
    eventually("the pipe is there", SETTLE_WITHIN, || async { pipe.exists().then_some(()) }).await;
    let write = |from: u64, to: u64| {
        let mut file = std::fs::OpenOptions::new().write(true).open(&pipe).expect("the pipe");
        for number in from..to {
            file.write_all(line(number).as_bytes()).expect("the pipe takes it");
        }
        file
    };
    for writer in 0..5 {
        drop(write(writer * 1_000, (writer + 1) * 1_000));
    }
    let stays = write(5_000, 5_100);
    let (books, numbers) = world.settled("fifo", 5_100).await;
    assert_eq!((numbers, books.lost_in_crash), ((0..5_100).collect(), 0), "{books:?}");
    // As long as a writer has it open the pipe keeps what was written and not read, though its reader is killed.
    world.agent.process().signal(rustix::process::Signal::STOP);
    let pid = world.agent.process().pid();
    eventually("the agent stands still", SETTLE_WITHIN, || async {
        Process::stands_still(pid).then_some(())
    })
    .await;
    let mut stays = stays;
    for number in 5_100..5_600 {
        stays.write_all(line(number).as_bytes()).expect("the pipe holds it");
    }
    world.agent.kill();
    world.agent.start().await;
    drop(stays);
    drop(write(5_600, 6_000));
    let (books, numbers) = world.settled("fifo", 6_000).await;
    // It may have read a line before it stopped: that one is counted.
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "each once and in order");
    assert_eq!(numbers.len() as u64 + books.lost_in_crash, 6_000, "{books:?}");
    assert!(books.lost_in_crash < 50, "{books:?}");
    // Without a reader nobody can write, and nothing hangs that asks so.
    let status = world.agent.end().await;
    assert!(status.success(), "{status}");
    let refused = std::fs::OpenOptions::new().write(true).custom_flags(0o4000).open(&pipe);
    assert!(refused.is_err(), "O_NONBLOCK: nobody reads");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn syslog_messages_that_wait_at_a_kill_are_counted_to_the_message() {
    let inputs = |dir: &Path| format!("{{name: syslog, syslog: {{unix_stream: {}/log}}}}", dir.display());
    // Little room, so that most messages wait in the queue of the input.
    let Some(mut world) = World::start(inputs, ", buffer: {quota: 4MiB, front: 64KiB}").await else { return };
    world.aggregator.kill();
    world.agent.start().await;
    let socket = world.site.dir().join("log");
    eventually("the agent listens", SETTLE_WITHIN, || async { socket.exists().then_some(()) }).await;
    let sender = std::thread::spawn(move || {
        let mut stream = std::os::unix::net::UnixStream::connect(socket).expect("the agent listens");
        for number in 0_u64.. {
            let mixed: String = (0..40)
                .map(|n| format!("{:08x}", (number * 97 + n).wrapping_mul(0x9e37_79b9) as u32))
                .collect();
            if writeln!(stream, "<13>1 - host app - - - line {number} {mixed}").is_err() {
                return;
            }
        }
    });
    let received = || async { world.agent.status().await?["logs"]["syslogs"][0]["received"].as_u64() };
    // Until the sender waits.
    let taken = eventually("nothing more is taken", SETTLE_WITHIN, || async {
        let before = received().await.filter(|n| *n > 1_000)?;
        let_run(STILL).await;
        (received().await? == before).then_some(before)
    })
    .await;
    world.agent.kill();
    sender.join().expect("the sender ends with its reader");
    world.aggregator.start().await;
    world.agent.start().await;
    let (books, numbers) = world.settled("syslog", taken).await;
    println!("{taken} taken, {} arrived, {} lost; {books:?}", numbers.len(), books.lost_in_crash);
    assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>(), "what arrived is what came first");
    assert_eq!(numbers.len() as u64 + books.lost_in_crash, taken, "{books:?}");
    assert!(books.lost_in_crash > 1_000, "{books:?}");
}
