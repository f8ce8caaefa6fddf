//! Interrupts by processor, from `/proc/interrupts` (Documentation/filesystems/proc.rst).

use super::emit::{Emitter, Metric};
use super::file::PolledFile;
use super::filter::Filter;
use super::text::{fields, label, lines, uint};
use super::{CollectError, Collector, Setup};

struct Interrupts {
    file: PolledFile,
    total: Metric,
    filter: Filter,
    zeros: bool,
    /// The processors, by their column.
    processors: Vec<Box<str>>,
    /// The interrupts, by their line.
    sources: Vec<Source>,
}

struct Source {
    name: Box<[u8]>,
    /// What stands behind the counts.
    rest: Box<[u8]>,
    /// The labels; none for one that is filtered out.
    wanted: Option<Labels>,
}

struct Labels {
    kind: Box<str>,
    info: Box<str>,
    devices: Box<str>,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    Box::new(Interrupts {
        file: PolledFile::new(setup.paths.procfs.join("interrupts")),
        total: Metric::counter(
            "node_interrupts_total",
            "Interrupts that were serviced, by processor and source.",
            &["cpu", "devices", "info", "type"],
        ),
        filter: setup.settings.interrupts.clone(),
        zeros: setup.settings.interrupts_zeros,
        processors: Vec::new(),
        sources: Vec::new(),
    })
}

impl Collector for Interrupts {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let Self { file, total, filter, zeros, processors, sources } = self;
        let text = file.read()?;
        let mut all = lines(text.bytes);
        let heading = all.next().ok_or_else(|| text.bad("it is empty", b""))?;
        let columns = fields(heading).count();
        // As in node_exporter, the label is the column's, also where a processor is offline.
        processors.truncate(columns);
        processors.extend((processors.len()..columns).map(|column| column.to_string().into_boxed_str()));
        let mut place = 0;
        for line in all {
            let Some(colon) = memchr::memchr(b':', line) else { continue };
            let (name, counts) = (line[..colon].trim_ascii_start(), &line[colon + 1..]);
            // ERR and MIS have one count for all processors.
            let Some(rest) = after(counts, columns) else { continue };
            let is_it = |known: &Source| *known.name == *name && *known.rest == *rest;
            if !sources.get(place).is_some_and(is_it) {
                sources.truncate(place);
                sources.push(Source::new(name, rest, filter));
            }
            if let Some(Labels { kind, info, devices }) = &sources[place].wanted {
                for (cpu, count) in processors.iter().zip(fields(counts)) {
                    let count = uint(count).ok_or_else(|| text.bad("a count is not a number", line))?;
                    if *zeros || count != 0 {
                        out.emit(total, &[cpu, devices, info, kind], count as f64);
                    }
                }
            }
            place += 1;
        }
        sources.truncate(place);
        Ok(())
    }
}

/// What stands behind the first fields; none if nothing does.
fn after(text: &[u8], count: usize) -> Option<&[u8]> {
    let mut rest = text.trim_ascii();
    for _ in 0..count {
        let end = rest.iter().position(u8::is_ascii_whitespace)?;
        rest = rest[end..].trim_ascii_start();
    }
    (!rest.is_empty()).then_some(rest)
}

impl Source {
    fn new(name: &[u8], rest: &[u8], filter: &Filter) -> Self {
        let mut words: Vec<&[u8]> = fields(rest).collect();
        // Numbered interrupts name their controller first and then the devices.
        let devices =
            if uint(name).is_some() { words.split_off(1).join(b" ".as_slice()) } else { Vec::new() };
        let labels =
            Labels { kind: label(name), info: label(&words.join(b" ".as_slice())), devices: label(&devices) };
        let text = format!("{};{};{}", labels.kind, labels.info, labels.devices);
        Self { name: name.into(), rest: rest.into(), wanted: filter.passes(&text).then_some(labels) }
    }
}
