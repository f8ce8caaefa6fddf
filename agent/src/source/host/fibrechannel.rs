//! Fibre Channel host adapters, `/sys/class/fc_host` (drivers/scsi/scsi_transport_fc.c).

use super::emit::{Emitter, Metric};
use super::sysfs::{
    Attribute, Devices, Entry, Short, is_missing, is_without_answer, no_data_if, uint_any_base,
};
use super::{CollectError, Collector, Setup};
use std::borrow::Cow;
use std::io::ErrorKind;

/// Words, in the order of the labels; the adapter's name stands behind the third.
const WORDS: [&str; 10] = [
    "dev_loss_tmo",
    "fabric_name",
    "port_id",
    "port_name",
    "port_state",
    "port_type",
    "speed",
    "supported_classes",
    "supported_speeds",
    "symbolic_name",
];

/// Which of the words are numbers, told without `0x`.
const NUMBERS_IN_WORDS: [&str; 3] = ["fabric_name", "port_id", "port_name"];

/// The attribute, the metric's name, its help.
const COUNTERS: [(&str, &str, &str); 14] = [
    ("dumped_frames", "dumped_frames_total", "Frames that were thrown away."),
    ("error_frames", "error_frames_total", "Frames with errors."),
    ("invalid_crc_count", "invalid_crc_total", "Frames with a wrong checksum."),
    ("rx_frames", "rx_frames_total", "Frames received."),
    ("rx_words", "rx_words_total", "Words received."),
    ("tx_frames", "tx_frames_total", "Frames sent."),
    ("tx_words", "tx_words_total", "Words sent."),
    ("seconds_since_last_reset", "seconds_since_last_reset_total", "Time since the counters began."),
    ("invalid_tx_word_count", "invalid_tx_words_total", "Invalid words."),
    ("link_failure_count", "link_failure_total", "How often the link failed."),
    ("loss_of_sync_count", "loss_of_sync_total", "How often synchronisation was lost."),
    ("loss_of_signal_count", "loss_of_signal_total", "How often the signal was lost."),
    ("nos_count", "nos_total", "How often the other side was not operational."),
    ("fcp_packet_aborts", "fcp_packet_aborts_total", "Packets that were aborted."),
];

/// What firmware says of a counter that it does not have.
const NOT_COUNTED: u64 = u64::MAX;

struct FibreChannel {
    hosts: Devices<Host>,
    info: Metric,
    counters: Vec<Metric>,
}

struct Host {
    words: [Attribute; WORDS.len()],
    counters: [Attribute; COUNTERS.len()],
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let counter = |(_, name, help): &(&str, &str, &str)| {
        Metric::counter(&format!("node_fibrechannel_{name}"), help, &["fc_host"])
    };
    Box::new(FibreChannel {
        hosts: Devices::new(setup.paths.sysfs.join("class/fc_host")),
        info: Metric::gauge(
            "node_fibrechannel_info",
            "1, with what an adapter says in words.",
            &[
                "dev_loss_tmo",
                "fabric_name",
                "fc_host",
                "port_id",
                "port_name",
                "port_state",
                "port_type",
                "speed",
                "supported_classes",
                "supported_speeds",
                "symbolic_name",
            ],
        ),
        counters: COUNTERS.iter().map(counter).collect(),
    })
}

impl Collector for FibreChannel {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let make = |entry: &Entry<'_>| {
            let dir = entry.path();
            Some(Host {
                words: WORDS.map(|name| Attribute::new(dir.join(name))),
                counters: COUNTERS.map(|(name, ..)| Attribute::new(dir.join("statistics").join(name))),
            })
        };
        let hosts = self.hosts.list(make).map_err(no_data_if(is_missing, "Fibre Channel"))?;
        out.whole(|out| {
            for host in hosts {
                host.is.emit(&host.name, &self.info, &self.counters, out)?;
            }
            Ok(())
        })
    }
}

impl Host {
    fn emit(
        &mut self,
        name: &str,
        info: &Metric,
        counters: &[Metric],
        out: &mut Emitter<'_>,
    ) -> Result<(), CollectError> {
        let missing = |error: &std::io::Error| error.kind() == ErrorKind::NotFound;
        let mut buffers: [Short; WORDS.len()] = [[0; 128]; WORDS.len()];
        let mut words = [const { Cow::Borrowed("") }; WORDS.len()];
        let attributes = WORDS.iter().zip(&mut self.words).zip(&mut buffers);
        for (((what, attribute), buffer), word) in attributes.zip(&mut words) {
            let text = attribute.read_unless(buffer, missing)?.unwrap_or_default();
            let cut = if NUMBERS_IN_WORDS.contains(what) && text.len() > 2 { 2 } else { 0 };
            *word = String::from_utf8_lossy(&text[cut..]);
        }
        let [tmo, fabric, id, port, state, kind, speed, classes, speeds, symbolic] = &words;
        let labels: [&str; 11] = [tmo, fabric, name, id, port, state, kind, speed, classes, speeds, symbolic];
        out.emit(info, &labels, 1.0);
        let mut buffer: Short = [0; 128];
        for (attribute, metric) in self.counters.iter_mut().zip(counters) {
            let Some(text) = attribute.read_unless(&mut buffer, is_without_answer)? else { continue };
            let value = uint_any_base(text).ok_or_else(|| attribute.bad("a number is expected", text))?;
            if value != NOT_COUNTED {
                out.emit(metric, &[name], value as f64);
            }
        }
        Ok(())
    }
}
