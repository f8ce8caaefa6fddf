//! Patterns of names.

use globset::{Glob, GlobSet, GlobSetBuilder};
use pegel_runtime::config::{Mistakes, Path};

/// Resolves patterns of names; none without any.
pub(super) fn names(
    texts: &[String],
    path: &Path,
    example: &str,
    mistakes: &mut Mistakes,
) -> Option<GlobSet> {
    let mut set = GlobSetBuilder::new();
    for (nth, text) in texts.iter().enumerate() {
        match Glob::new(text) {
            Ok(glob) if !text.is_empty() => {
                set.add(glob);
            }
            bad => {
                let why =
                    bad.err().map_or_else(|| "it is empty".to_owned(), |error| error.kind().to_string());
                let reason = format!("`{}` is not a pattern: {why}", text.escape_debug());
                mistakes.at(
                    &path.index(nth),
                    reason,
                    format!("write a name or a pattern such as `{example}`"),
                );
            }
        }
    }
    if texts.is_empty() { None } else { set.build().ok() }
}
