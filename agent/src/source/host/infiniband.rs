//! InfiniBand and RDMA devices, `/sys/class/infiniband` (Documentation/ABI/stable/sysfs-class-infiniband).

mod counters;

use super::emit::{Emitter, Metric};
use super::filter::Filter;
use super::sysfs::{
    Attribute, Devices, Entry, Page, Short, is_missing, is_without_answer, no_data_if, uint_any_base,
};
use super::text::uint;
use super::{CollectError, Collector, Setup};
use counters::{COUNTERS, EXTENDED, HARDWARE, PLAIN};
use std::io::ErrorKind;
use std::path::Path;

/// The kernel counts data by lane; a port has four.
const LANES: u64 = 4;
const BY_LANE: [&str; 4] = ["port_rcv_data", "port_xmit_data", "port_rcv_data_64", "port_xmit_data_64"];

/// Bytes a second in a gigabit a second.
const BYTES_PER_GIGABIT: f64 = 125_000_000.0;

/// The kernel says the lifespan of hardware counters in milliseconds.
const MILLI: u64 = 1000;

/// What drivers say that cannot count.
const NOT_AVAILABLE: &[u8] = b"N/A (no PMA)";

struct Infiniband {
    devices: Devices<Hca>,
    filter: Filter,
    metrics: Metrics,
}

struct Metrics {
    info: Metric,
    state: Metric,
    physical_state: Metric,
    rate: Metric,
    lifespan: Metric,
    counters: Vec<Metric>,
}

struct Hca {
    firmware: Attribute,
    board: Attribute,
    kind: Attribute,
    ports: Devices<Port>,
}

struct Port {
    state: Attribute,
    physical_state: Attribute,
    rate: Attribute,
    lifespan: Attribute,
    /// Those that the driver has, with their place in the table.
    counters: Vec<(usize, Attribute)>,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let gauge =
        |name: &str, help: &str| Metric::gauge(&format!("node_infiniband_{name}"), help, &["device", "port"]);
    let counter = |(dir, file, name): &(&str, &str, &str)| {
        let help = format!("`{dir}/{file}` of a port; data in bytes.");
        Metric::counter(&format!("node_infiniband_{name}"), &help, &["device", "port"])
    };
    Box::new(Infiniband {
        devices: Devices::new(setup.paths.sysfs.join("class/infiniband")),
        filter: setup.settings.infiniband_devices.clone(),
        metrics: Metrics {
            info: Metric::gauge(
                "node_infiniband_info",
                "1, with what a device says in words.",
                &["board_id", "device", "firmware_version", "hca_type"],
            ),
            state: gauge("state_id", "The port's state: 1 down, 2 init, 3 armed, 4 active, 5 act defer."),
            physical_state: gauge(
                "physical_state_id",
                "The port's physical state: 1 sleep, 2 polling, 3 disabled, 4 training, 5 up, 6 recovery, 7 test.",
            ),
            rate: gauge("rate_bytes_per_second", "The fastest that the port can be."),
            lifespan: gauge("lifespan_seconds", "How old hardware counters may be when they are read."),
            counters: COUNTERS.iter().map(counter).collect(),
        },
    })
}

impl Collector for Infiniband {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let filter = &self.filter;
        let make = |entry: &Entry<'_>| filter.passes(entry.name).then(|| Hca::new(&entry.path()));
        out.whole(|out| {
            for device in self.devices.list(make)? {
                device.is.emit(&device.name, &self.metrics, out)?;
            }
            Ok(())
        })
        .map_err(no_data_if(is_missing, "InfiniBand devices, or not all that is asked of them"))
    }
}

impl Hca {
    fn new(dir: &Path) -> Self {
        let attribute = |name: &str| Attribute::new(dir.join(name));
        Self {
            firmware: attribute("fw_ver"),
            board: attribute("board_id"),
            kind: attribute("hca_type"),
            ports: Devices::new(dir.join("ports")),
        }
    }

    fn emit(&mut self, name: &str, metrics: &Metrics, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let missing = |error: &std::io::Error| error.kind() == ErrorKind::NotFound;
        let mut buffers: [Short; 3] = [[0; 128]; 3];
        let [firmware, board, kind] = &mut buffers;
        let firmware = String::from_utf8_lossy(self.firmware.required(firmware)?);
        let board = String::from_utf8_lossy(self.board.read_unless(board, missing)?.unwrap_or_default());
        let kind = String::from_utf8_lossy(self.kind.read_unless(kind, missing)?.unwrap_or_default());
        out.emit(&metrics.info, &[&board, name, &firmware, &kind], 1.0);
        let make = |entry: &Entry<'_>| uint(entry.name.as_bytes()).map(|_| Port::new(&entry.path()));
        for port in self.ports.list(make)? {
            port.is.emit([name, &port.name], metrics, out)?;
        }
        Ok(())
    }
}

impl Port {
    fn new(dir: &Path) -> Self {
        let attribute = |name: &str| Attribute::new(dir.join(name));
        let has_plain = dir.join(PLAIN).exists();
        let counter = |(place, (within, file, _)): (usize, &(&str, &str, &str))| {
            let path = dir.join(within).join(file);
            let is_there = path.is_file() && (has_plain || *within != EXTENDED);
            is_there.then(|| (place, Attribute::new(path)))
        };
        Self {
            state: attribute("state"),
            physical_state: attribute("phys_state"),
            rate: attribute("rate"),
            lifespan: Attribute::new(dir.join(HARDWARE).join("lifespan")),
            counters: COUNTERS.iter().enumerate().filter_map(counter).collect(),
        }
    }

    fn emit(
        &mut self,
        labels: [&str; 2],
        metrics: &Metrics,
        out: &mut Emitter<'_>,
    ) -> Result<(), CollectError> {
        let mut page: Page = [0; 4096];
        for (attribute, metric) in
            [(&mut self.state, &metrics.state), (&mut self.physical_state, &metrics.physical_state)]
        {
            let text = attribute.required(&mut page)?;
            let number = text.split(|b| *b == b':').next().and_then(|number| uint(number.trim_ascii()));
            let number = number.ok_or_else(|| attribute.bad("`number: words` is expected", text))?;
            out.emit(metric, &labels, number as f64);
        }
        let text = self.rate.required(&mut page)?;
        let rate = rate(text).ok_or_else(|| self.rate.bad("`number Gb/sec` is expected", text))?;
        out.emit(&metrics.rate, &labels, rate);
        if let Some(lifespan) = count(&mut self.lifespan)? {
            out.emit(&metrics.lifespan, &labels, (lifespan / MILLI) as f64);
        }
        for (place, attribute) in &mut self.counters {
            let Some(value) = count(attribute)? else { continue };
            let lanes = if BY_LANE.contains(&COUNTERS[*place].1) { LANES } else { 1 };
            out.emit(&metrics.counters[*place], &labels, value.wrapping_mul(lanes) as f64);
        }
        Ok(())
    }
}

/// A count; none if the driver has no such.
fn count(attribute: &mut Attribute) -> Result<Option<u64>, CollectError> {
    let mut buffer: Short = [0; 128];
    let Some(text) = attribute.read_unless(&mut buffer, is_without_answer)? else { return Ok(None) };
    match uint_any_base(text) {
        None if memchr::memmem::find(text, NOT_AVAILABLE).is_some() => Ok(None),
        None => Err(attribute.bad("a number is expected", text)),
        value => Ok(value),
    }
}

/// Bytes a second from words such as `100 Gb/sec (4X EDR)`.
fn rate(text: &[u8]) -> Option<f64> {
    let end = text.iter().position(|b| *b == b' ')?;
    let gigabits: f32 = std::str::from_utf8(&text[..end]).ok()?.parse().ok()?;
    // Whole bytes.
    Some((f64::from(gigabits) * BYTES_PER_GIGABIT).trunc())
}
