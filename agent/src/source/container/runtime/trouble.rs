//! Why a runtime is of no use at the moment.

use super::super::RuntimeKind;
use std::io;
use std::time::Duration;

/// What went wrong between us and a runtime. Every variant ends the session; another is begun after a pause.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Trouble {
    /// There is a socket and nobody listens on it, or it is gone.
    #[error("nobody answers on its socket ({0}); names return when the runtime does")]
    Away(String),
    /// The socket may not be opened.
    #[error(
        "the agent may not open its socket; let the agent's user into the socket's group, or name the sockets to use \
         in containers.runtimes.sockets"
    )]
    Denied,
    /// A request had no answer in time.
    #[error("{what} was not answered within {limit:?}; the runtime hangs")]
    Silent {
        /// The request.
        what: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// An answer that can't be understood.
    #[error("{what} was answered with what can't be understood: {reason}")]
    Nonsense {
        /// The request.
        what: &'static str,
        /// What is wrong with it. Never a piece of it: answers hold secrets.
        reason: String,
    },
    /// The runtime says that it failed.
    #[error("{what} failed in the runtime: {reason}")]
    Refused {
        /// The request.
        what: &'static str,
        /// What it said, shortened.
        reason: String,
    },
    /// The connection broke, by the runtime's end or ours.
    #[error("the connection ended ({0})")]
    Ended(String),
    /// A containerd without the CRI: Docker's own is one.
    #[error("it does not serve the CRI; its containers are known by whoever uses it (Docker, for example)")]
    NoCri,
}

impl Trouble {
    /// What an error on connecting means.
    pub(super) fn connecting(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::Denied,
            _ => Self::Away(error.to_string()),
        }
    }

    /// Whether it is the way things are here and nobody has to do anything.
    pub(super) fn is_expected(&self) -> bool {
        matches!(self, Self::NoCri)
    }

    /// A short word for metrics.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Away(_) => "away",
            Self::Denied => "denied",
            Self::Silent { .. } => "silent",
            Self::Nonsense { .. } => "nonsense",
            Self::Refused { .. } => "refused",
            Self::Ended(_) => "ended",
            Self::NoCri => "no_cri",
        }
    }

    /// Whether the same is to be told again: what changes in words only from try to try is told once.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        let what = |trouble: &Self| match trouble {
            Self::Silent { what, .. } | Self::Nonsense { what, .. } | Self::Refused { what, .. } => {
                Some(*what)
            }
            _ => None,
        };
        self.word() == other.word() && what(self) == what(other)
    }
}

/// A runtime's words, short enough for a log line and without line breaks.
pub(super) fn shortened(words: &str) -> String {
    const MOST: usize = 200;
    let mut short: String = words.chars().take(MOST).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if words.chars().nth(MOST).is_some() {
        short.push('…');
    }
    short
}

impl RuntimeKind {
    /// The name in configuration, status and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Containerd => "containerd",
            Self::CriO => "cri-o",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_trouble_in_other_words_is_not_told_again() {
        let away = |words: &str| Trouble::Away(words.into());
        let silent = |what| Trouble::Silent { what, limit: Duration::from_secs(1) };
        assert!(away("refused").same_as(&away("gone")));
        assert!(!away("refused").same_as(&Trouble::Denied));
        assert!(!silent("version").same_as(&silent("list")));
    }

    #[test]
    fn words_of_a_runtime_are_cut_and_stay_on_one_line() {
        assert_eq!(shortened("two\nlines"), "two lines");
        assert_eq!(shortened(&"x".repeat(1_000)).chars().count(), 201);
    }
}
