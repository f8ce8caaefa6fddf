//! Options of collectors that read devices from sysfs. None is on by default.

use super::{Options, RawFilter};
use crate::source::host::Settings;
use pegel_runtime::config::{Mistakes, Path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Block caches.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RawBcache {
    /// Whether `node_bcache_priority_stats_*` are collected, for which the kernel goes through all buckets.
    pub priority_stats: bool,
}

impl Options for RawBcache {
    fn resolve(&self, _: &Path, _: &mut Mistakes, settings: &mut Settings) {
        settings.bcache_priority_stats = self.priority_stats;
    }
}

/// Sensors.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RawHwmon {
    /// The chips, as `platform_coretemp_0`.
    pub chips: RawFilter,
    /// The sensors, as `platform_coretemp_0;temp3`.
    pub sensors: RawFilter,
}

impl Options for RawHwmon {
    fn resolve(&self, path: &Path, mistakes: &mut Mistakes, settings: &mut Settings) {
        self.chips.resolve(&mut settings.hwmon_chips, &path.key("chips"), mistakes);
        self.sensors.resolve(&mut settings.hwmon_sensors, &path.key("sensors"), mistakes);
    }
}

/// InfiniBand and RDMA.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RawInfiniband {
    /// The devices.
    pub devices: RawFilter,
}

impl Options for RawInfiniband {
    fn resolve(&self, path: &Path, mistakes: &mut Mistakes, settings: &mut Settings) {
        self.devices.resolve(&mut settings.infiniband_devices, &path.key("devices"), mistakes);
    }
}

/// State of network interfaces.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RawNetclass {
    /// The interfaces.
    pub devices: RawFilter,
    /// Whether interfaces that do not know their speed are left without one; they say a negative one otherwise.
    pub ignore_invalid_speed: bool,
}

impl Options for RawNetclass {
    fn resolve(&self, path: &Path, mistakes: &mut Mistakes, settings: &mut Settings) {
        self.devices.resolve(&mut settings.netclass_devices, &path.key("devices"), mistakes);
        settings.netclass_ignore_invalid_speed = self.ignore_invalid_speed;
    }
}

/// Batteries and mains.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RawPowerSupplies {
    /// The power supplies.
    pub supplies: RawFilter,
}

impl Options for RawPowerSupplies {
    fn resolve(&self, path: &Path, mistakes: &mut Mistakes, settings: &mut Settings) {
        self.supplies.resolve(&mut settings.power_supplies, &path.key("supplies"), mistakes);
    }
}

/// Energy that parts of the machine took.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RawRapl {
    /// Whether all zones share `node_rapl_joules_total`, with the label `rapl_zone`; each has a metric otherwise.
    pub zone_label: bool,
}

impl Options for RawRapl {
    fn resolve(&self, _: &Path, _: &mut Mistakes, settings: &mut Settings) {
        settings.rapl_zone_label = self.zone_label;
    }
}

/// Tape drives.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RawTapes {
    /// The drives.
    pub devices: RawFilter,
}

impl Options for RawTapes {
    fn resolve(&self, path: &Path, mistakes: &mut Mistakes, settings: &mut Settings) {
        self.devices.resolve(&mut settings.tapes, &path.key("devices"), mistakes);
    }
}

/// The kernel's object caches.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RawSlabinfo {
    /// The caches.
    pub slabs: RawFilter,
}

impl Options for RawSlabinfo {
    fn resolve(&self, path: &Path, mistakes: &mut Mistakes, settings: &mut Settings) {
        self.slabs.resolve(&mut settings.slabs, &path.key("slabs"), mistakes);
    }
}
