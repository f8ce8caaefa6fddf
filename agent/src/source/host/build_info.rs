//! `node_exporter_build_info`: dashboards find their instances by it. The version is pegel's.

use super::emit::{Emitter, Metric};

/// Go's name of the architecture, which dashboards know.
const ARCHITECTURE: &str = match std::env::consts::ARCH.as_bytes() {
    b"x86_64" => "amd64",
    b"aarch64" => "arm64",
    _ => std::env::consts::ARCH,
};

/// The metric.
pub(super) fn metric() -> Metric {
    Metric::gauge(
        "node_exporter_build_info",
        "1, with the version of the agent that stands in for node_exporter.",
        &["branch", "goarch", "goos", "goversion", "revision", "tags", "version"],
    )
}

/// Emits its one sample.
pub(super) fn emit(metric: &Metric, out: &mut Emitter<'_>) {
    let revision = option_env!("PEGEL_REVISION").unwrap_or("unknown");
    let version = concat!("pegel-", env!("CARGO_PKG_VERSION"));
    out.emit(metric, &["", ARCHITECTURE, "linux", "", revision, "", version], 1.0);
}
