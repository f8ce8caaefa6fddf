//! The program in the test images: it does what a test asks for and says when it is done with each step.
//!
//! Steps come as arguments, separated by `then`: `workload allocate 64000000 then burn 2 then idle`. It is one
//! statically linked file with nothing but `std`, so that an image is this file and nothing else; `backend
//! workload` builds it.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream};
use std::process::exit;
use std::time::{Duration, Instant};

const USAGE: &str = "\
workload STEP [then STEP]…
  idle                   does nothing, for ever
  sleep SECONDS          does nothing for a while
  burn SECONDS [THREADS] uses a core with each thread; 0 seconds is for ever
  allocate BYTES         touches that much memory and keeps it
  write FILE BYTES       writes a file and flushes it to the disk
  read FILE              reads a file
  touch FILE             makes an empty file
  remove FILE            removes a file
  check FILE             ends with 1 unless the file exists: for health checks
  open COUNT             opens that many descriptors of its own binary and keeps them
  threads COUNT          starts that many threads that do nothing
  spawn COUNT            starts that many processes that do nothing
  say LINES [TEXT]       writes lines to stdout
  chat DIRECTORY RATE    writes numbered lines to stdout and to stderr for ever, so many a second to each; a file of
                         the directory, one for each life, has how many it has written
  serve PORT             takes connections for ever and reads what they send, in a thread of its own
  send HOST:PORT BYTES   connects, sends that many bytes and waits for the count that came back
  exit CODE              ends";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut kept = Kept::default();
    for step in arguments.split(|a| a == "then") {
        if let Err(problem) = run(step, &mut kept) {
            eprintln!("workload: {}: {problem}\n{USAGE}", step.join(" "));
            exit(64);
        }
        println!("done {}", step.join(" "));
    }
}

/// What steps leave behind for as long as the program runs.
#[derive(Default)]
struct Kept {
    memory: Vec<Vec<u8>>,
    files: Vec<File>,
}

fn run(step: &[String], kept: &mut Kept) -> Result<(), String> {
    let word = |at: usize| step.get(at).map(String::as_str).ok_or("an argument is missing".to_owned());
    let number = |at: usize| word(at)?.parse::<u64>().map_err(|e| format!("argument {at}: {e}"));
    let io = |e: std::io::Error| e.to_string();
    match word(0)? {
        "idle" => loop {
            std::thread::park();
        },
        "sleep" => std::thread::sleep(Duration::from_secs(number(1)?)),
        "burn" => burn(Duration::from_secs(number(1)?), number(2).unwrap_or(1)),
        "allocate" => {
            let mut memory = vec![0_u8; number(1)? as usize];
            memory.iter_mut().step_by(512).for_each(|byte| *byte = 1);
            kept.memory.push(black_box(memory));
        }
        "write" => {
            let mut file = File::create(word(1)?).map_err(io)?;
            let (chunk, mut left) = (vec![7_u8; 1 << 16], number(2)?);
            while left > 0 {
                let n = left.min(chunk.len() as u64);
                file.write_all(&chunk[..n as usize]).map_err(io)?;
                left -= n;
            }
            file.sync_all().map_err(io)?;
        }
        "read" => drop(black_box(fs::read(word(1)?).map_err(io)?)),
        "touch" => drop(File::create(word(1)?).map_err(io)?),
        "remove" => fs::remove_file(word(1)?).map_err(io)?,
        "check" if !fs::exists(word(1)?).map_err(io)? => exit(1),
        "check" => {}
        "open" => {
            for _ in 0..number(1)? {
                kept.files.push(File::open("/proc/self/exe").map_err(io)?);
            }
        }
        "threads" => (0..number(1)?).for_each(|_| {
            std::thread::spawn(|| loop {
                std::thread::park();
            });
        }),
        "spawn" => {
            for _ in 0..number(1)? {
                std::process::Command::new("/proc/self/exe").arg("idle").spawn().map_err(io)?;
            }
        }
        "say" => (0..number(1)?).for_each(|n| println!("{n} {}", word(2).unwrap_or("line"))),
        "chat" => chat(word(1)?, number(2)?).map_err(io)?,
        "serve" => serve(&TcpListener::bind(("0.0.0.0", number(1)? as u16)).map_err(io)?),
        "send" => send(word(1)?, number(2)?).map_err(io)?,
        "exit" => exit(number(1)? as i32),
        other => return Err(format!("there is no step `{other}`")),
    }
    Ok(())
}

/// The line of a number in a life: every fiftieth is longer than what runtimes write at once.
fn line(life: usize, number: u64) -> String {
    let words = if number % 50 == 49 { 2_500 } else { 4 };
    let mut text = format!("life {life} line {number:08}");
    for word in 0..words {
        text.push_str(&format!(" {:08x}", (number << 20 | word).wrapping_mul(0x9e37_79b9_7f4a_7c15) as u32));
    }
    text.push('\n');
    text
}

fn chat(directory: &str, rate: u64) -> std::io::Result<()> {
    let life = fs::read_dir(directory)?.count();
    let mut written = File::create(format!("{directory}/{life}"))?;
    let began = Instant::now();
    for number in 0.. {
        let due = Duration::from_millis(1_000 * number / rate.max(1));
        std::thread::sleep(due.saturating_sub(began.elapsed()));
        let text = line(life, number);
        std::io::stdout().lock().write_all(text.as_bytes())?;
        std::io::stderr().lock().write_all(text.as_bytes())?;
        written.seek(SeekFrom::Start(0))?;
        written.write_all(format!("{:08}", number + 1).as_bytes())?;
    }
    Ok(())
}

fn burn(time: Duration, threads: u64) {
    let until = (!time.is_zero()).then(|| Instant::now() + time);
    let spin = move || {
        let mut n = 0_u64;
        while until.is_none_or(|until| Instant::now() < until) {
            for _ in 0..10_000 {
                n = black_box(n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
            }
        }
    };
    let others: Vec<_> = (1..threads).map(|_| std::thread::spawn(spin)).collect();
    spin();
    others.into_iter().for_each(|thread| thread.join().expect("a thread that spins"));
}

/// Answers each connection with how many bytes it sent, once it has sent all.
fn serve(listener: &TcpListener) {
    let listener = listener.try_clone().expect("a second handle");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let (mut stream, mut buffer, mut total) = (stream, vec![0; 1 << 16], 0_u64);
                while let Ok(n @ 1..) = stream.read(&mut buffer) {
                    total += n as u64;
                }
                let _ = writeln!(stream, "{total}");
            });
        }
    });
}

fn send(address: &str, bytes: u64) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    let (chunk, mut left) = (vec![7_u8; 1 << 16], bytes);
    while left > 0 {
        let n = left.min(chunk.len() as u64);
        stream.write_all(&chunk[..n as usize])?;
        left -= n;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    println!("arrived {}", answer.trim());
    Ok(())
}
