//! IPsec's errors, from `/proc/net/xfrm_stat` (Documentation/networking/xfrm_proc.rst).

use super::emit::{Emitter, Metric};
use super::file::PolledFile;
use super::text::{fields, int, lines};
use super::{CollectError, Collector, Setup};

/// The counters that node_exporter knows, and how it calls them.
const COUNTERS: [(&str, &str); 28] = [
    ("XfrmInError", "in_error"),
    ("XfrmInBufferError", "in_buffer_error"),
    ("XfrmInHdrError", "in_hdr_error"),
    ("XfrmInNoStates", "in_no_states"),
    ("XfrmInStateProtoError", "in_state_proto_error"),
    ("XfrmInStateModeError", "in_state_mode_error"),
    ("XfrmInStateSeqError", "in_state_seq_error"),
    ("XfrmInStateExpired", "in_state_expired"),
    ("XfrmInStateMismatch", "in_state_mismatch"),
    ("XfrmInStateInvalid", "in_state_invalid"),
    ("XfrmInTmplMismatch", "in_tmpl_mismatch"),
    ("XfrmInNoPols", "in_no_pols"),
    ("XfrmInPolBlock", "in_pol_block"),
    ("XfrmInPolError", "in_pol_error"),
    ("XfrmOutError", "out_error"),
    ("XfrmOutBundleGenError", "out_bundle_gen_error"),
    ("XfrmOutBundleCheckError", "out_bundle_check_error"),
    ("XfrmOutNoStates", "out_no_states"),
    ("XfrmOutStateProtoError", "out_state_proto_error"),
    ("XfrmOutStateModeError", "out_state_mode_error"),
    ("XfrmOutStateSeqError", "out_state_seq_error"),
    ("XfrmOutStateExpired", "out_state_expired"),
    ("XfrmOutPolBlock", "out_pol_block"),
    ("XfrmOutPolDead", "out_pol_dead"),
    ("XfrmOutPolError", "out_pol_error"),
    ("XfrmFwdHdrError", "fwd_hdr_error"),
    ("XfrmOutStateInvalid", "out_state_invalid"),
    ("XfrmAcquireError", "acquire_error"),
];

struct Xfrm {
    file: PolledFile,
    counters: Vec<Metric>,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let counter = |(counter, name): &(&str, &str)| {
        let help = format!("`{counter}` of /proc/net/xfrm_stat.");
        Metric::counter(&format!("node_xfrm_{name}_packets_total"), &help, &[])
    };
    Box::new(Xfrm {
        file: PolledFile::new(setup.paths.procfs.join("net/xfrm_stat")),
        counters: COUNTERS.iter().map(counter).collect(),
    })
}

impl Collector for Xfrm {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let text = self.file.read_if_there()?;
        let text = text.ok_or(CollectError::NoData("IPsec statistics (CONFIG_XFRM_STATISTICS)"))?;
        // A counter that a kernel does not write is zero.
        let mut values = [0i64; COUNTERS.len()];
        for line in lines(text.bytes) {
            let mut columns = fields(line);
            let (Some(name), Some(Some(value)), None) =
                (columns.next(), columns.next().map(int), columns.next())
            else {
                return Err(text.bad("a name and a number are expected", line));
            };
            if let Some(at) = COUNTERS.iter().position(|(known, _)| known.as_bytes() == name) {
                values[at] = value;
            }
        }
        for (metric, value) in self.counters.iter().zip(values) {
            out.emit(metric, &[], value as f64);
        }
        Ok(())
    }
}
