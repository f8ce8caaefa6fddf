//! A bare loop over the same corpus: read, split, zstd-1 in 1 MiB, write and fdatasync, POST. What no shipper can beat
//! by much, on the same disk in the same run.

use anyhow::{Context as _, Result, ensure};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;

/// What is compressed and posted at once.
const PIECE_BYTES: usize = 1 << 20;

/// What the loop reads and where it posts to.
#[derive(Debug, clap::Args)]
pub struct BareArguments {
    /// The sink's port.
    #[arg(long)]
    port: u16,
    /// Where the pieces are written.
    #[arg(long)]
    spool: PathBuf,
    /// Written when all is done.
    #[arg(long)]
    done: PathBuf,
    /// The files.
    files: Vec<PathBuf>,
}

/// Runs the loop, then waits to be killed, so that what it used can be read.
pub fn run(arguments: &BareArguments) -> Result<()> {
    let mut connection = TcpStream::connect(("127.0.0.1", arguments.port))?;
    connection.set_nodelay(true)?;
    let mut answers = BufReader::new(connection.try_clone()?);
    let mut spool = File::create(&arguments.spool)?;
    let mut compressor = zstd::bulk::Compressor::new(1)?;
    let mut packed = vec![0; zstd::zstd_safe::compress_bound(PIECE_BYTES)];
    let (mut piece, mut lines) = (vec![0; PIECE_BYTES], 0_u64);
    for path in &arguments.files {
        let mut file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        loop {
            let mut filled = 0;
            while filled < piece.len() {
                match file.read(&mut piece[filled..])? {
                    0 => break,
                    n => filled += n,
                }
            }
            if filled == 0 {
                break;
            }
            lines += piece[..filled].split(|byte| *byte == b'\n').count() as u64;
            let length = compressor.compress_to_buffer(&piece[..filled], &mut packed[..])?;
            spool.write_all(&packed[..length])?;
            spool.sync_data()?;
            let head = format!("POST /bare HTTP/1.1\r\nHost: sink\r\nContent-Length: {length}\r\n\r\n");
            connection.write_all(head.as_bytes())?;
            connection.write_all(&packed[..length])?;
            answer(&mut answers)?;
        }
    }
    std::fs::write(&arguments.done, format!("{lines}\n"))?;
    loop {
        std::thread::park();
    }
}

fn answer(answers: &mut BufReader<TcpStream>) -> Result<()> {
    let mut line = String::new();
    answers.read_line(&mut line)?;
    ensure!(line.starts_with("HTTP/1.1 204"), "the sink answered {line}");
    while line != "\r\n" {
        line.clear();
        ensure!(answers.read_line(&mut line)? > 0, "the sink hung up");
    }
    Ok(())
}
