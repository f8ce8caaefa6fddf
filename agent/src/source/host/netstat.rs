//! Protocol counters from `/proc/net/netstat`, `/proc/net/snmp` and `/proc/net/snmp6`
//! (Documentation/networking/snmp_counter.rst).

use super::emit::{Emitter, Metric};
use super::file::{Content, PolledFile};
use super::filter::Pattern;
use super::text::{KeyCache, fields, float, is_metric_name, label, lines};
use super::{CollectError, Collector, Setup};

struct Netstat {
    wanted: Pattern,
    extended: (PolledFile, Table),
    snmp: (PolledFile, Table),
    snmp6: (PolledFile, KeyCache),
}

/// What the pairs of lines of a file mean, by their place.
#[derive(Default)]
struct Table(Vec<Group>);

/// One protocol: the line of names, and for each name that is wanted its column.
struct Group {
    names: Box<[u8]>,
    columns: usize,
    wanted: Vec<(usize, Metric)>,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let file = |name: &str| PolledFile::new(setup.paths.procfs.join("net").join(name));
    Box::new(Netstat {
        wanted: setup.settings.netstat_fields.clone(),
        extended: (file("netstat"), Table::default()),
        snmp: (file("snmp"), Table::default()),
        snmp6: (file("snmp6"), KeyCache::default()),
    })
}

fn metric(wanted: &Pattern, protocol: &str, name: &str) -> Option<Metric> {
    let key = format!("{protocol}_{name}");
    (is_metric_name(key.as_bytes()) && wanted.matches(&key)).then(|| {
        Metric::untyped(&format!("node_netstat_{key}"), &format!("`{name}` of protocol {protocol}."))
    })
}

impl Collector for Netstat {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let netstat = self.extended.0.read()?;
        let snmp = self.snmp.0.read()?;
        // Without IPv6 there is no such file.
        let snmp6 = self.snmp6.0.read_if_there()?;
        self.extended.1.emit(netstat, &self.wanted, out)?;
        self.snmp.1.emit(snmp, &self.wanted, out)?;
        let Some(text) = snmp6 else { return Ok(()) };
        for (place, line) in lines(text.bytes).enumerate() {
            let mut parts = fields(line);
            let (Some(key), Some(value)) = (parts.next(), parts.next()) else { continue };
            let make = |key: &[u8]| {
                let key = label(key);
                let (protocol, name) = key.split_at(key.find('6')? + 1);
                metric(&self.wanted, protocol, name)
            };
            if let Some(metric) = self.snmp6.1.metric(place, key, make) {
                let value = float(value).ok_or_else(|| text.bad("the value is not a number", line))?;
                out.emit(metric, &[], value);
            }
        }
        Ok(())
    }
}

impl Table {
    fn emit(
        &mut self,
        text: Content<'_>,
        wanted: &Pattern,
        out: &mut Emitter<'_>,
    ) -> Result<(), CollectError> {
        let mut all = lines(text.bytes);
        let mut place = 0;
        while let Some(names) = all.next() {
            let values = all.next().ok_or_else(|| text.bad("the line of values is missing", names))?;
            if self.0.get(place).is_none_or(|group| *group.names != *names) {
                let group = Group::read(names, wanted)
                    .ok_or_else(|| text.bad("`Protocol: names` is expected", names))?;
                self.0.truncate(place);
                self.0.push(group);
            }
            let group = &self.0[place];
            // Only the wanted columns are looked at; the count says that they are the right ones.
            if memchr::memchr_iter(b' ', values).count() != group.columns {
                return Err(text.bad("there are not as many values as names", values));
            }
            let mut columns = values.split(|b| *b == b' ').enumerate();
            for (column, metric) in &group.wanted {
                let value = columns.find(|(at, _)| at == column).and_then(|(_, value)| float(value));
                let value = value.ok_or_else(|| text.bad("the value is not a number", values))?;
                out.emit(metric, &[], value);
            }
            place += 1;
        }
        self.0.truncate(place);
        Ok(())
    }
}

impl Group {
    fn read(line: &[u8], wanted: &Pattern) -> Option<Self> {
        let text = label(line);
        let mut names = text.split(' ');
        let protocol = names.next()?.strip_suffix(':')?;
        let found =
            names.enumerate().filter_map(|(at, name)| Some((at + 1, metric(wanted, protocol, name)?)));
        let wanted = found.collect();
        Some(Self { names: line.into(), columns: memchr::memchr_iter(b' ', line).count(), wanted })
    }
}
