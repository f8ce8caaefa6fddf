//! AMD graphics cards, `/sys/class/drm/cardN/device` (Documentation/gpu/amdgpu).

use super::emit::{Emitter, Metric};
use super::sysfs::{Attribute, Devices, Entry, Short, is_missing, uint_any_base};
use super::{CollectError, Collector, Setup};
use std::borrow::Cow;

/// The attribute, the metric's name, its help.
const NUMBERS: [(&str, &str, &str); 7] = [
    ("gpu_busy_percent", "gpu_busy_percent", "How busy the card is."),
    ("mem_info_gtt_total", "memory_gtt_size_bytes", "The machine's memory that the card can use."),
    ("mem_info_gtt_used", "memory_gtt_used_bytes", "How much of it is in use."),
    ("mem_info_vram_total", "memory_vram_size_bytes", "The card's memory."),
    ("mem_info_vram_used", "memory_vram_used_bytes", "How much of it is in use."),
    ("mem_info_vis_vram_total", "memory_vis_vram_size_bytes", "The card's memory that processors can see."),
    ("mem_info_vis_vram_used", "memory_vis_vram_used_bytes", "How much of it is in use."),
];

/// Words, in the order of the labels behind the card's name.
const WORDS: [&str; 3] = ["mem_info_vram_vendor", "power_dpm_force_performance_level", "unique_id"];

/// What the kernel says of a card with the driver that has these attributes.
const DRIVER: &[u8] = b"DRIVER=amdgpu";
const VENDOR: &str = "amd";

/// `ENODATA`: the card sleeps.
const ENODATA: i32 = 61;

struct Drm {
    cards: Devices<Card>,
    info: Metric,
    numbers: Vec<Metric>,
}

struct Card {
    uevent: Attribute,
    numbers: [Attribute; NUMBERS.len()],
    words: [Attribute; WORDS.len()],
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let number =
        |(_, name, help): &(&str, &str, &str)| Metric::gauge(&format!("node_drm_{name}"), help, &["card"]);
    Box::new(Drm {
        cards: Devices::new(setup.paths.sysfs.join("class/drm")),
        info: Metric::gauge(
            "node_drm_card_info",
            "1, with what a card says in words.",
            &["card", "memory_vendor", "power_performance_level", "unique_id", "vendor"],
        ),
        numbers: NUMBERS.iter().map(number).collect(),
    })
}

impl Collector for Drm {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        // Longer names are connectors, such as `card0-DP-1`.
        let make = |entry: &Entry<'_>| {
            entry.numbered("card").filter(|number| number.len() == 1).map(|_| Card::new(entry))
        };
        let cards = match self.cards.list(make) {
            Err(error) if is_missing(&error) => return Ok(()),
            cards => cards?,
        };
        out.whole(|out| {
            cards.iter_mut().try_for_each(|card| card.is.emit(&card.name, &self.info, &self.numbers, out))
        })
    }
}

impl Card {
    fn new(entry: &Entry<'_>) -> Self {
        let device = entry.path().join("device");
        Self {
            uevent: Attribute::new(device.join("uevent")),
            numbers: NUMBERS.map(|(name, ..)| Attribute::new(device.join(name))),
            words: WORDS.map(|name| Attribute::new(device.join(name))),
        }
    }

    fn emit(
        &mut self,
        name: &str,
        info: &Metric,
        numbers: &[Metric],
        out: &mut Emitter<'_>,
    ) -> Result<(), CollectError> {
        let mut buffer: Short = [0; 128];
        let asleep = |error: &std::io::Error| error.raw_os_error() == Some(ENODATA);
        let uevent = self.uevent.read_unless(&mut buffer, asleep)?;
        if uevent.is_none_or(|text| memchr::memmem::find(text, DRIVER).is_none()) {
            return Ok(());
        }
        let mut buffers: [Short; WORDS.len()] = [[0; 128]; WORDS.len()];
        let mut words = [const { Cow::Borrowed("") }; WORDS.len()];
        for ((attribute, buffer), word) in self.words.iter_mut().zip(&mut buffers).zip(&mut words) {
            *word = String::from_utf8_lossy(attribute.read(buffer).unwrap_or_default());
        }
        let [vendor, level, id] = &words;
        out.emit(info, &[name, vendor, level, id, VENDOR], 1.0);
        for (attribute, metric) in self.numbers.iter_mut().zip(numbers) {
            // What a card does not have counts as none.
            let value = match attribute.read(&mut buffer) {
                Err(_) => 0,
                Ok(text) => uint_any_base(text).ok_or_else(|| attribute.bad("a number is expected", text))?,
            };
            out.emit(metric, &[name], value as f64);
        }
        Ok(())
    }
}
