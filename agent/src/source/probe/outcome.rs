//! How a check can fail: where, why, and in words.
//!
//! Phase and reason are bounded sets, because they become label values (`pegel_probe_failure`); the words are for
//! logs and the status API only. Words never hold what was read from a credentials file.

use std::fmt;
use std::time::Duration;

macro_rules! words {
    (
        $(#[$doc:meta])*
        $name:ident { $($(#[$variant_doc:meta])* $variant:ident $word:literal,)* }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The label value.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

words! {
    /// How far a check came.
    Phase {
        /// Files of the check's own (credentials, certificates, bodies), sockets.
        Setup "setup",
        /// From the name to an address.
        Resolve "resolve",
        /// The TCP connection, or the start of a command.
        Connect "connect",
        /// The TLS handshake and the server's certificate.
        Tls "tls",
        /// Proving who asks.
        Login "login",
        /// From the request to the first byte of the answer.
        Processing "processing",
        /// Reading the rest of the answer.
        Transfer "transfer",
        /// The answer is there and is not what it should be.
        Assertion "assertion",
    }
}

words! {
    /// Why a check failed.
    Reason {
        /// It took longer than its time limit.
        Timeout "timeout",
        /// The machine answered that nothing listens there.
        Refused "refused",
        /// The connection was torn down.
        Reset "reset",
        /// The connection ended before the answer did.
        Closed "closed",
        /// There is no way to the network or machine.
        Unreachable "unreachable",
        /// The kernel does not let the agent do this.
        NotPermitted "not_permitted",
        /// The name does not exist.
        NameNotFound "name_not_found",
        /// The name has no address of the wanted protocol.
        NoAddress "no_address",
        /// The name server does not answer, or says that it fails.
        NameServer "name_server",
        /// The certificate's time is over.
        CertificateExpired "certificate_expired",
        /// The certificate's time has not come.
        CertificateNotYetValid "certificate_not_yet_valid",
        /// The certificate is for another name.
        CertificateName "certificate_name",
        /// Nobody who is trusted issued the certificate.
        CertificateUntrusted "certificate_untrusted",
        /// Its issuer took the certificate back.
        CertificateRevoked "certificate_revoked",
        /// Nothing that the server brings says that the certificate is still good, where that is required.
        RevocationUnknown "revocation_unknown",
        /// The certificate cannot be used for another cause.
        CertificateInvalid "certificate_invalid",
        /// The TLS handshake failed: versions, ciphers, client certificate, or no TLS there at all.
        Handshake "handshake",
        /// TLS is used where it must not be, or is not used where it must be.
        TlsUse "tls_use",
        /// The other side does not speak the protocol.
        Protocol "protocol",
        /// The other side does not take the credentials.
        Credentials "credentials",
        /// Redirects go on for too long, or to nowhere.
        Redirect "redirect",
        /// The status is not one that is valid.
        Status "status",
        /// The protocol's version is not one that is valid.
        Version "version",
        /// A header is not what it should be.
        Header "header",
        /// The body, or another answer, is not what it should be.
        Body "body",
        /// The body is larger than allowed.
        TooLarge "too_large",
        /// The body is not compressed as it should be.
        Compression "compression",
        /// What was expected did not come.
        Expectation "expectation",
        /// The DNS answer's code is not one that is valid.
        Rcode "rcode",
        /// The DNS answer's records are not what they should be.
        Records "records",
        /// The answer was cut off.
        Truncated "truncated",
        /// The service says of itself that it is not well.
        NotServing "not_serving",
        /// A command ended with something else than success.
        ExitCode "exit_code",
        /// A signal ended a command.
        Signal "signal",
        /// A command cannot be started: its program or its directory is not there, or is none.
        SpawnFailed "spawn_failed",
        /// Something that should have called in did not.
        Missed "missed",
        /// A file of the check cannot be read or used.
        Configuration "configuration",
        /// The agent has no file descriptors or memory left for the check.
        Resources "resources",
        /// Something else.
        Other "other",
    }
}

/// Why a check failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// How far it came.
    pub phase: Phase,
    /// Why it did not come further.
    pub reason: Reason,
    /// The same with names and numbers, for people; short, printable, without secrets.
    pub words: String,
}

/// How many characters of words are kept: what a log line and a page can show.
const MAX_WORDS: usize = 400;

impl Failure {
    /// A failure. What cannot be printed in the words is escaped, and they are cut at some hundred characters.
    pub fn new(phase: Phase, reason: Reason, words: impl Into<String>) -> Self {
        let words: String = words.into();
        let fits = words.len() <= MAX_WORDS && !words.contains(char::is_control);
        let words = if fits { words } else { words.chars().flat_map(printable).take(MAX_WORDS).collect() };
        Self { phase, reason, words }
    }

    /// A failure of an I/O call.
    pub fn of_io(phase: Phase, doing: impl fmt::Display, error: &std::io::Error) -> Self {
        Self::new(phase, reason_of_io(error), format!("{doing}: {error}"))
    }

    /// The time limit passed in a phase.
    pub fn timeout(phase: Phase, limit: Duration) -> Self {
        Self::new(phase, Reason::Timeout, format!("no end within {limit:?}, in phase {phase}"))
    }

    /// An answer that is not what it should be.
    pub fn assertion(reason: Reason, words: impl Into<String>) -> Self {
        Self::new(Phase::Assertion, reason, words)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl std::error::Error for Failure {}

fn printable(c: char) -> impl Iterator<Item = char> {
    let escape = c.is_control();
    escape.then(|| c.escape_default()).into_iter().flatten().chain((!escape).then_some(c))
}

/// The reason that an I/O error stands for.
pub fn reason_of_io(error: &std::io::Error) -> Reason {
    use std::io::ErrorKind as Kind;
    match error.kind() {
        Kind::ConnectionRefused => Reason::Refused,
        Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe => Reason::Reset,
        Kind::UnexpectedEof | Kind::WriteZero | Kind::NotConnected => Reason::Closed,
        Kind::HostUnreachable | Kind::NetworkUnreachable | Kind::NetworkDown | Kind::AddrNotAvailable => {
            Reason::Unreachable
        }
        Kind::PermissionDenied => Reason::NotPermitted,
        Kind::TimedOut => Reason::Timeout,
        Kind::OutOfMemory | Kind::StorageFull | Kind::AddrInUse => Reason::Resources,
        Kind::InvalidData => Reason::Protocol,
        _ => match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
            Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE | rustix::io::Errno::NOBUFS) => {
                Reason::Resources
            }
            _ => Reason::Other,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn label_values_are_unique_words() {
        let phases = Phase::ALL.iter().map(|p| p.name());
        let reasons = Reason::ALL.iter().map(|r| r.name());
        assert_eq!(phases.clone().collect::<HashSet<_>>().len(), Phase::ALL.len());
        assert_eq!(reasons.clone().collect::<HashSet<_>>().len(), Reason::ALL.len());
        for word in phases.chain(reasons) {
            assert!(word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{word}");
        }
    }

    #[test]
    fn words_are_printable_and_short() {
        let failure = Failure::assertion(Reason::Body, format!("got \u{1b}[31m{}", "x".repeat(5_000)));
        assert!(failure.words.starts_with("got \\u{1b}[31mxxx"), "{failure}");
        assert_eq!(failure.words.chars().count(), MAX_WORDS);
    }

    #[test]
    fn io_errors_have_their_reasons() {
        for (errno, reason) in [
            (rustix::io::Errno::CONNREFUSED, Reason::Refused),
            (rustix::io::Errno::CONNRESET, Reason::Reset),
            (rustix::io::Errno::HOSTUNREACH, Reason::Unreachable),
            (rustix::io::Errno::MFILE, Reason::Resources),
            (rustix::io::Errno::ACCESS, Reason::NotPermitted),
        ] {
            assert_eq!(reason_of_io(&std::io::Error::from(errno)), reason);
        }
    }
}
