//! The operating system, from `/etc/os-release` or `/usr/lib/os-release` (os-release(5)).

use super::emit::{Emitter, Metric};
use super::text::{label, quoted, uint};
use super::{CollectError, Collector, Setup};
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The labels of `node_os_info`, and the keys that they come from.
const INFO_LABELS: [&str; 12] = [
    "build_id",
    "id",
    "id_like",
    "image_id",
    "image_version",
    "name",
    "pretty_name",
    "variant",
    "variant_id",
    "version",
    "version_codename",
    "version_id",
];
const ID: usize = 1;
const ID_LIKE: usize = 2;
const NAME: usize = 5;
const VERSION_ID: usize = 11;

/// The longest file that is read, in bytes: some hundred are usual.
const MAX_BYTES: u64 = 64 << 10;

struct Os {
    paths: [PathBuf; 2],
    info: Metric,
    version: Metric,
    support_end: Metric,
    known: Option<(Identity, Release)>,
}

/// What tells one state of one file from another.
#[derive(PartialEq, Eq)]
struct Identity {
    path: usize,
    device: u64,
    inode: u64,
    changed: (i64, i64),
    bytes: u64,
}

/// What is emitted of a file.
#[derive(Debug, Default, PartialEq)]
struct Release {
    values: [Box<str>; INFO_LABELS.len()],
    version: Option<f64>,
    support_end: Option<i64>,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let root = &setup.paths.rootfs;
    Box::new(Os {
        paths: [root.join("etc/os-release"), root.join("usr/lib/os-release")],
        info: Metric::gauge("node_os_info", "1, with what os-release(5) says.", &INFO_LABELS),
        version: Metric::gauge(
            "node_os_version",
            "The operating system's version, as a number MAJOR.MINOR.",
            &["id", "id_like", "name"],
        ),
        support_end: Metric::gauge(
            "node_os_support_end_timestamp_seconds",
            "When support of the operating system ends, in Unix time.",
            &[],
        ),
        known: None,
    })
}

impl Collector for Os {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        self.refresh()?;
        let Some((_, release)) = &self.known else { return Ok(()) };
        let values: [&str; INFO_LABELS.len()] = std::array::from_fn(|at| &*release.values[at]);
        out.emit(&self.info, &values, 1.0);
        if let Some(version) = release.version {
            out.emit(&self.version, &[values[ID], values[ID_LIKE], values[NAME]], version);
        }
        if let Some(end) = release.support_end {
            out.emit(&self.support_end, &[], end as f64);
        }
        Ok(())
    }
}

impl Os {
    /// Reads the first file that is there, unless it is the one that is known.
    fn refresh(&mut self) -> Result<(), CollectError> {
        for (at, path) in self.paths.iter().enumerate() {
            let failed = |source| CollectError::Read { path: path.clone(), source };
            let identity = match fs::metadata(path) {
                Ok(found) => Identity::new(at, &found),
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(error)),
            };
            if self.known.as_ref().is_none_or(|(known, _)| *known != identity) {
                self.known = None;
                let mut text = Vec::new();
                let file = File::open(path).map_err(failed)?;
                file.take(MAX_BYTES).read_to_end(&mut text).map_err(failed)?;
                self.known = Some((identity, Release::parse(path, &text)?));
            }
            return Ok(());
        }
        self.known = None;
        Err(CollectError::NoData("os-release file"))
    }
}

impl Identity {
    fn new(path: usize, of: &Metadata) -> Self {
        let changed = (of.ctime(), of.ctime_nsec());
        Self { path, device: of.dev(), inode: of.ino(), changed, bytes: of.size() }
    }
}

impl Release {
    fn parse(path: &Path, text: &[u8]) -> Result<Self, CollectError> {
        let mut release = Self::default();
        for line in text.split(|b| *b == b'\n').map(<[u8]>::trim_ascii) {
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let bad = |what| CollectError::Parse { path: path.to_owned(), what, line: quoted(line) };
            let (key, value) = assignment(line).map_err(bad)?;
            if value.is_empty() {
                continue;
            }
            // A label is its key in small letters.
            let is_it = |name: &&str| name.bytes().map(|b| b.to_ascii_uppercase()).eq(key.iter().copied());
            if let Some(at) = INFO_LABELS.iter().position(is_it) {
                release.values[at] = label(&value);
            } else if key == b"SUPPORT_END" {
                let end = date(&value).ok_or_else(|| bad("the date is not YYYY-MM-DD"))?;
                release.support_end = Some(end);
            }
        }
        release.version = version(&release.values[VERSION_ID]);
        Ok(release)
    }
}

/// Reads `KEY=value`, with the shell's quotes and, within double ones, JSON's escapes.
fn assignment(line: &[u8]) -> Result<(&[u8], Vec<u8>), &'static str> {
    let equals = memchr::memchr(b'=', line).ok_or("`KEY=value` is expected")?;
    let (key, value) = (line[..equals].trim_ascii_end(), line[equals + 1..].trim_ascii());
    let key = key.strip_prefix(b"export ").unwrap_or(key);
    let begins = key.first().is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_');
    if !begins || !key.iter().all(|b| b.is_ascii_alphanumeric() || b"_./".contains(b)) {
        return Err("the key is not a name");
    }
    Ok((key, unquoted(value)?))
}

fn unquoted(value: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut out = Vec::with_capacity(value.len());
    // How much of it is more than blanks before a comment.
    let mut significant = 0;
    let mut quote = None;
    let mut rest = value;
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        match (quote, *byte) {
            (_, 0..32) => return Err("a control character is in the value"),
            (None, b'"' | b'\'') => quote = Some(*byte),
            (None, b'#') => {
                out.truncate(significant);
                return Ok(out);
            }
            (None, b' ') => {
                out.push(b' ');
                continue;
            }
            (Some(open), byte) if open == byte => quote = None,
            (Some(b'"'), b'\\') => rest = escape(rest, &mut out)?,
            (_, byte) => out.push(byte),
        }
        significant = out.len();
    }
    if quote.is_some() { Err("a quote is not closed") } else { Ok(out) }
}

/// Reads what follows a backslash; gives what is left.
fn escape<'a>(text: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], &'static str> {
    let (byte, rest) = text.split_first().ok_or("an escape is not complete")?;
    let byte = match byte {
        // The shell's own, and JSON's.
        b'"' | b'\\' | b'/' | b'$' | b'`' => *byte,
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'u' => return unicode(rest, out),
        _ => return Err("an escape is unknown"),
    };
    out.push(byte);
    Ok(rest)
}

/// Reads the digits after `\u`, and the second half of a surrogate pair.
fn unicode<'a>(text: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], &'static str> {
    const BAD: &str = "an escape is no character";
    let unit = |text: &'a [u8]| {
        let digits = std::str::from_utf8(text.get(..4)?).ok()?;
        Some((u16::from_str_radix(digits, 16).ok()?, &text[4..]))
    };
    let (first, mut rest) = unit(text).ok_or(BAD)?;
    let mut units = vec![first];
    if (0xd800..0xdc00).contains(&first) {
        let second = rest.strip_prefix(b"\\u").and_then(unit).ok_or(BAD)?;
        units.push(second.0);
        rest = second.1;
    }
    out.extend(String::from_utf16(&units).map_err(|_| BAD)?.bytes());
    Ok(rest)
}

/// The number that a version begins with; none if it is zero or there is none.
fn version(text: &str) -> Option<f64> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let major = digits(text);
    let minor = text[major..].strip_prefix('.').map_or(0, |rest| 1 + digits(rest));
    let number = (major > 0).then(|| &text[..major + minor])?;
    number.parse().ok().filter(|version| *version > 0.0)
}

/// The Unix time at which a day begins, in UTC.
fn date(text: &[u8]) -> Option<i64> {
    let [year @ .., b'-', m1, m2, b'-', d1, d2] = text else { return None };
    let year = uint(year).filter(|_| year.len() == 4)?;
    let (month, day) = (uint(&[*m1, *m2])?, uint(&[*d1, *d2])?);
    let day = tz::UtcDateTime::new(year as i32, month as u8, day as u8, 0, 0, 0, 0).ok()?;
    Some(day.unix_time())
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "the same numbers are expected to the last bit")]
mod tests {
    use super::*;

    fn value(line: &str) -> Result<String, &'static str> {
        assignment(line.as_bytes()).map(|(_, value)| String::from_utf8(value).unwrap())
    }

    #[test]
    fn values_lose_quotes_escapes_and_comments() {
        for (line, expected) in [
            ("A=plain", "plain"),
            ("export A = two words ", "two words"),
            ("A=word # comment", "word"),
            (r#"A="a # b"  # c"#, "a # b"),
            (r"A='it is $1'", "it is $1"),
            (r#"A="\"q\" \\ \$ \u00e4 \ud83d\ude00 \t""#, "\"q\" \\ $ ä 😀 \t"),
            ("A=grün", "grün"),
            ("A=", ""),
        ] {
            assert_eq!(value(line).as_deref(), Ok(expected), "{line}");
        }
    }

    #[test]
    fn lines_that_are_none_are_refused() {
        for line in [
            "word",
            "=x",
            "1A=x",
            "A B=x",
            r#"A="x"#,
            "A='x",
            r#"A="\q""#,
            r#"A="\u12""#,
            r#"A="\ud83d""#,
            "A=\x01",
        ] {
            assert!(value(line).is_err(), "{line}");
        }
    }

    #[test]
    fn versions_and_dates_are_numbers() {
        assert_eq!(version("22.04.3"), Some(22.04));
        assert_eq!((version("12"), version("3."), version("41 (x)")), (Some(12.0), Some(3.0), Some(41.0)));
        assert_eq!((version(""), version("tumbleweed"), version("0")), (None, None, None));
        assert_eq!(date(b"2026-05-13"), Some(1_778_630_400));
        assert_eq!((date(b"2026-5-13"), date(b"2026-13-01"), date(b"26-01-01")), (None, None, None));
    }

    #[test]
    fn a_file_that_changes_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let mut os = Os {
            paths: [dir.path().join("etc/os-release"), dir.path().join("usr/lib/os-release")],
            info: Metric::gauge("i", "", &INFO_LABELS),
            version: Metric::gauge("v", "", &[]),
            support_end: Metric::gauge("s", "", &[]),
            known: None,
        };
        assert!(matches!(os.refresh(), Err(CollectError::NoData(_))));
        write("usr/lib/os-release", "ID=old\n");
        os.refresh().unwrap();
        write("etc/os-release", "ID=newer\nVERSION_ID=\"2.5\"\n");
        os.refresh().unwrap();
        assert_eq!(
            os.known.as_ref().map(|(_, known)| (&*known.values[ID], known.version)),
            Some(("newer", Some(2.5)))
        );
        write("etc/os-release", "no assignment\n");
        let words = os.refresh().unwrap_err().to_string();
        assert!(words.contains("etc/os-release") && words.contains("no assignment"), "{words}");
        write("etc/os-release", "ID=again and longer\n");
        os.refresh().unwrap();
    }
}
