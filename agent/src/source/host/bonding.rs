//! Bonded interfaces and their links (Documentation/networking/bonding.rst, `/sys/class/net/bonding_masters`).

use super::emit::{Emitter, Metric};
use super::sysfs::{Attribute, Page, Short, is_missing, no_data_if};
use super::text::{fields, label};
use super::{CollectError, Collector, Setup};
use std::path::{Path, PathBuf};

struct Bonding {
    net: PathBuf,
    masters: Attribute,
    known: Vec<Master>,
    slaves: Metric,
    active: Metric,
}

/// A bond.
struct Master {
    name: Box<str>,
    slaves: Attribute,
    known: Vec<Slave>,
}

/// A link of a bond.
struct Slave {
    name: Box<str>,
    status: Attribute,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let net = setup.paths.sysfs.join("class/net");
    Box::new(Bonding {
        masters: Attribute::new(net.join("bonding_masters")),
        net,
        known: Vec::new(),
        slaves: Metric::gauge("node_bonding_slaves", "How many links a bond has.", &["master"]),
        active: Metric::gauge("node_bonding_active", "How many links of a bond are up.", &["master"]),
    })
}

impl Collector for Bonding {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        out.whole(|out| self.emit(out)).map_err(no_data_if(is_missing, "bonded interfaces"))
    }
}

impl Bonding {
    fn emit(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let mut page: Page = [0; 4096];
        let names = self.masters.required(&mut page)?;
        let mut place = 0;
        for name in words(names) {
            if self.known.get(place).is_none_or(|master| master.name.as_bytes() != name) {
                self.known.truncate(place);
                self.known.push(Master::new(&self.net, name));
            }
            let master = &mut self.known[place];
            let (slaves, active) = master.count(&self.net)?;
            out.emit(&self.slaves, &[&master.name], f64::from(slaves));
            out.emit(&self.active, &[&master.name], f64::from(active));
            place += 1;
        }
        self.known.truncate(place);
        Ok(())
    }
}

impl Master {
    fn new(net: &Path, name: &[u8]) -> Self {
        let name = label(name);
        Self { slaves: Attribute::new(net.join(&*name).join("bonding/slaves")), name, known: Vec::new() }
    }

    /// How many links there are, and how many of them are up.
    fn count(&mut self, net: &Path) -> Result<(u32, u32), CollectError> {
        let mut page: Page = [0; 4096];
        let names = self.slaves.required(&mut page)?;
        let (mut slaves, mut active) = (0, 0);
        for (place, name) in words(names).enumerate() {
            if self.known.get(place).is_none_or(|slave| slave.name.as_bytes() != name) {
                self.known.truncate(place);
                self.known.push(Slave::new(&net.join(&*self.name), name));
            }
            let mut buffer: Short = [0; 128];
            slaves += 1;
            active += u32::from(self.known[place].status.required(&mut buffer)? == b"up");
        }
        self.known.truncate(slaves as usize);
        Ok((slaves, active))
    }
}

impl Slave {
    fn new(master: &Path, name: &[u8]) -> Self {
        let name = label(name);
        // Before Linux 3.14 the links were called after `slave`.
        let link = ["lower", "slave"].map(|kind| master.join(format!("{kind}_{name}")));
        let link = link.iter().find(|path| path.exists()).unwrap_or(&link[1]);
        Self { status: Attribute::new(link.join("bonding_slave/mii_status")), name }
    }
}

fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|b| *b == b'\n').flat_map(fields)
}
