//! What sources that read the kernel share: files that are read at every scrape, their text, the way from values to
//! series, and threads that a hanging call cannot take along.

pub(in crate::source) mod emit;
pub(in crate::source) mod file;
pub(in crate::source) mod lane;
pub(in crate::source) mod text;

use std::path::PathBuf;

/// Why a collector has no or not all samples. What it emitted before stands, but for a file that cannot be
/// parsed: that takes all of the collector's samples away.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// A file, or another answer of the kernel, cannot be had.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file's content is not what the kernel's documentation says.
    #[error("cannot understand {}: {what}, in `{line}`", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What was expected.
        what: &'static str,
        /// The line, printable and cut.
        line: String,
    },
    /// This kernel does not have what the collector reads; nothing is wrong.
    #[error("this kernel has no {0}")]
    NoData(&'static str),
    /// The collector has a bug.
    #[error("it panicked: {0}; please report this")]
    Panicked(String),
}
