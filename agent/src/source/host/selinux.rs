//! SELinux's mode, from selinuxfs under `/sys/fs/selinux` and `/etc/selinux/config` (selinux_config(5)).

use super::emit::{Emitter, Metric};
use super::file::PolledFile;
use super::text::{int, lines};
use super::{CollectError, Collector, Setup};
use std::fs;
use std::path::PathBuf;

const ENFORCING: f64 = 1.0;
const PERMISSIVE: f64 = 0.0;
/// What is said of a mode that is not known, too.
const DISABLED: f64 = -1.0;

/// The context of every process as long as no policy is loaded.
const NO_POLICY: &[u8] = b"kernel";

struct Selinux {
    enforce: PolledFile,
    context: PathBuf,
    config: PathBuf,
    enabled: Metric,
    config_mode: Metric,
    current_mode: Metric,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    Box::new(Selinux {
        enforce: PolledFile::new(setup.paths.sysfs.join("fs/selinux/enforce")),
        context: setup.paths.procfs.join("self/attr/current"),
        config: setup.paths.rootfs.join("etc/selinux/config"),
        enabled: Metric::gauge("node_selinux_enabled", "1 if SELinux is enabled, 0 if not.", &[]),
        config_mode: Metric::gauge(
            "node_selinux_config_mode",
            "The configured mode: 1 enforcing, 0 permissive, -1 disabled.",
            &[],
        ),
        current_mode: Metric::gauge(
            "node_selinux_current_mode",
            "The mode now: 1 enforcing, 0 permissive, -1 unknown.",
            &[],
        ),
    })
}

impl Collector for Selinux {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        // A kernel without SELinux, and one on which it is off, has no selinuxfs.
        let Some(text) = self.enforce.read_if_there()? else {
            out.emit(&self.enabled, &[], 0.0);
            return Ok(());
        };
        let current = int(text.bytes.trim_ascii()).map_or(DISABLED, |mode| mode as f64);
        // A process may be forbidden to know its own context: then there is a policy.
        let context = fs::read(&self.context).unwrap_or_default();
        if context.strip_suffix(b"\0").unwrap_or(&context) == NO_POLICY {
            out.emit(&self.enabled, &[], 0.0);
            return Ok(());
        }
        out.emit(&self.enabled, &[], 1.0);
        out.emit(&self.config_mode, &[], configured(&fs::read(&self.config).unwrap_or_default()));
        out.emit(&self.current_mode, &[], current);
        Ok(())
    }
}

/// The mode that the configuration names first.
fn configured(config: &[u8]) -> f64 {
    let mode = lines(config).find_map(|line| line.trim_ascii().strip_prefix(b"SELINUX="));
    match mode {
        Some(b"enforcing" | b"\"enforcing\"") => ENFORCING,
        Some(b"permissive" | b"\"permissive\"") => PERMISSIVE,
        _ => DISABLED,
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "the same numbers are expected to the last bit")]
mod tests {
    use super::*;

    #[test]
    fn the_configured_mode_is_found_among_comments() {
        assert_eq!(
            configured(b"# SELINUX=enforcing\n\n SELINUX=permissive\nSELINUXTYPE=targeted\n"),
            PERMISSIVE
        );
        assert_eq!(configured(b"SELINUX=\"enforcing\"\nSELINUX=disabled\n"), ENFORCING);
        assert_eq!(configured(b"SELINUXTYPE=targeted\nSELINUX=disabled\n"), DISABLED);
        assert_eq!(configured(b""), DISABLED);
    }
}
