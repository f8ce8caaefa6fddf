//! Gives back the memory of program text that only the start needed.
//!
//! Some 20 MB of the program are text. The start goes through much of it (configuration, handshakes, discovery), a fault
//! maps sixteen pages at once, and what is mapped stays: 18 MB were resident of which running takes a third. So the
//! text is unmapped from time to time, and what is in use comes back from the page cache within some hundred faults.

#![allow(unsafe_code, reason = "no safe crate tells the kernel about memory that it did not map itself")]

use std::fs;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// By then connections stand and every collector has run.
const FIRST_AFTER: Duration = Duration::from_secs(8);
/// What is used seldom gathers again.
const EVERY: Duration = Duration::from_mins(10);

/// Gives text back until the shutdown.
pub async fn give_back_forever(shutdown: CancellationToken) {
    let mut wait = FIRST_AFTER;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        give_back();
        wait = EVERY;
    }
}

/// Unmaps the pages of this program's text; says of how many bytes. None where the kernel does not say what is where.
pub fn give_back() -> Option<usize> {
    let program = fs::read_link("/proc/self/exe").ok()?;
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let texts = maps.lines().filter_map(|line| text_of(line, program.to_str()?));
    let mut bytes = 0;
    for (from, to) in texts {
        // SAFETY: the mapping is private, of a file, readable and executable and not writable (`text_of`), so its pages
        // are those of the file: nothing was written to them that could be lost. Linux lets nobody write to the file of
        // a running program, and one that was replaced keeps its inode. MADV_DONTNEED drops this process' page table
        // entries; the next access, which may be the next instruction, maps the same content again (madvise(2)).
        // The range is the kernel's own, so it is aligned and mapped.
        let done = unsafe { libc::madvise(from as *mut libc::c_void, to - from, libc::MADV_DONTNEED) };
        if done == 0 {
            bytes += to - from;
        }
    }
    Some(bytes)
}

/// The range of a line of `/proc/PID/maps`, if it is the program's text: `from-to r-xp offset device inode path`.
fn text_of(line: &str, program: &str) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (range, rights) = (words.next()?, words.next()?);
    let path = words.nth(3)?;
    // A path with a space is another one by its first word, and is left alone.
    if rights != "r-xp" || path != program || words.next().is_some() {
        return None;
    }
    let (from, to) = range.split_once('-')?;
    Some((usize::from_str_radix(from, 16).ok()?, usize::from_str_radix(to, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_programs_own_text_is_meant() {
        let line =
            "7f0000001000-7f0000003000 r-xp 00001000 fd:01 42                         /usr/bin/pegel-agent";
        assert_eq!(text_of(line, "/usr/bin/pegel-agent"), Some((0x7f00_0000_1000, 0x7f00_0000_3000)));
        for other in [
            line.replace("r-xp", "r--p"),
            line.replace("r-xp", "rwxp"),
            line.replace("r-xp", "r-xs"),
            format!("{line} (deleted)"),
            line.replace("/usr/bin/pegel-agent", "/lib/libc.so.6"),
            line.replace("/usr/bin/pegel-agent", ""),
        ] {
            assert_eq!(text_of(&other, "/usr/bin/pegel-agent"), None, "{other}");
        }
    }

    #[test]
    fn what_was_given_back_runs_on() {
        let resident = || {
            let status = fs::read_to_string("/proc/self/status").unwrap();
            let line =
                status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap().trim().to_owned();
            line.trim_end_matches(" kB").trim().parse::<usize>().unwrap()
        };
        // All of the text that a test of everything else has touched by now, or this one alone.
        let before = resident();
        let bytes = give_back().expect("this is Linux");
        assert!(bytes > 0);
        assert!(resident() <= before);
    }
}
