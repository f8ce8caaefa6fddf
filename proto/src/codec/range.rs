//! The entropy coder: a carry-less binary range coder that grows from the front of a frame's body, and raw bits
//! that grow from its back, so that neither needs a length.
//!
//! Encoder and decoder are both a [`Coder`]; everything that models values is written once against that trait.
//! The encoder is given each decision and returns it, the decoder ignores what it is given and returns what the
//! frame says. So the two ends cannot run apart: they run the same code.

/// The bits of a probability: `1 ..= 65535` stand for `1/65536 ..= 65535/65536`.
pub(super) const PROB_BITS: u32 = 16;

/// One end of the entropy coder.
pub(super) trait Coder {
    /// Whether this end is given the decisions. The other end is given anything.
    const ENCODING: bool;

    /// Codes one decision whose probability to be true is `p / 65536`.
    fn bit(&mut self, p: u32, bit: bool) -> bool;

    /// Codes up to 64 bits that nothing is known of.
    fn raw(&mut self, bits: u32, value: u64) -> u64;
}

/// Writes decisions. The buffers are kept from frame to frame.
#[derive(Debug, Default)]
pub(super) struct RangeEncoder {
    low: u32,
    high: u32,
    front: Vec<u8>,
    back: Vec<u8>,
    hold: u64,
    held: u32,
}

impl RangeEncoder {
    /// Begins a frame.
    pub(super) fn start(&mut self) {
        self.front.clear();
        self.back.clear();
        (self.low, self.high) = (0, u32::MAX);
        (self.hold, self.held) = (0, 0);
    }

    /// Ends the frame and appends it. Any bytes may follow the front part, so the last bytes name an interval
    /// that lies wholly within the coder's.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        for bytes in 1..=4u32 {
            let rest = u32::MAX.checked_shr(8 * bytes).unwrap_or(0);
            let point = self.low.saturating_add(rest) & !rest;
            if point >= self.low && (point | rest) <= self.high {
                self.front.extend_from_slice(&point.to_be_bytes()[..bytes as usize]);
                break;
            }
        }
        if self.held > 0 {
            let bytes = self.held.div_ceil(8) as usize;
            self.back.extend_from_slice(&self.hold.to_le_bytes()[..bytes]);
        }
        out.extend_from_slice(&self.front);
        out.extend(self.back.iter().rev());
    }

    fn raw_word(&mut self, bits: u32, value: u64) {
        self.hold |= value << self.held;
        self.held += bits;
        while self.held >= 8 {
            self.back.push(self.hold as u8);
            self.hold >>= 8;
            self.held -= 8;
        }
    }
}

fn split(low: u32, high: u32, p: u32) -> u32 {
    low + ((u64::from(high - low) * u64::from(p)) >> PROB_BITS) as u32
}

impl Coder for RangeEncoder {
    const ENCODING: bool = true;

    #[inline]
    fn bit(&mut self, p: u32, bit: bool) -> bool {
        let middle = split(self.low, self.high, p);
        self.high = if bit { middle } else { self.high };
        self.low = if bit { self.low } else { middle + 1 };
        while (self.low ^ self.high) >> 24 == 0 {
            self.front.push((self.high >> 24) as u8);
            self.low <<= 8;
            self.high = (self.high << 8) | 0xff;
        }
        bit
    }

    #[inline]
    fn raw(&mut self, bits: u32, value: u64) -> u64 {
        if bits > 32 {
            self.raw_word(32, value & 0xffff_ffff);
            self.raw_word(bits - 32, value >> 32);
        } else if bits > 0 {
            self.raw_word(bits, value);
        }
        value
    }
}

/// Reads decisions. Past the body's end it reads zeroes and remembers so.
#[derive(Debug)]
pub(super) struct RangeDecoder<'a> {
    low: u32,
    high: u32,
    code: u32,
    bytes: &'a [u8],
    front: usize,
    back: usize,
    hold: u64,
    held: u32,
}

/// How far the range decoder may read ahead of what it needs: the four bytes of its window.
const READ_AHEAD: usize = 4;

impl<'a> RangeDecoder<'a> {
    /// Begins to read a body.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        let mut this = Self { low: 0, high: u32::MAX, code: 0, bytes, front: 0, back: 0, hold: 0, held: 0 };
        for _ in 0..READ_AHEAD {
            this.shift();
        }
        this
    }

    fn shift(&mut self) {
        let byte = self.bytes.get(self.front).copied().unwrap_or(0);
        self.code = (self.code << 8) | u32::from(byte);
        self.front += 1;
    }

    /// Whether more was read than the body holds: only a frame that no encoder wrote does that.
    pub(super) fn overran(&self) -> bool {
        self.front > self.bytes.len() + READ_AHEAD || self.back > self.bytes.len()
    }

    fn raw_word(&mut self, bits: u32) -> u64 {
        while self.held < bits {
            self.back += 1;
            let byte = self.bytes.len().checked_sub(self.back).map_or(0, |at| self.bytes[at]);
            self.hold |= u64::from(byte) << self.held;
            self.held += 8;
        }
        let value = self.hold & ((1u64 << bits) - 1);
        self.hold >>= bits;
        self.held -= bits;
        value
    }
}

impl Coder for RangeDecoder<'_> {
    const ENCODING: bool = false;

    #[inline]
    fn bit(&mut self, p: u32, _: bool) -> bool {
        let middle = split(self.low, self.high, p);
        let bit = self.code <= middle;
        // Written as selections: the outcome is hard to foresee, so a branch on it would cost more than both sides.
        self.high = if bit { middle } else { self.high };
        self.low = if bit { self.low } else { middle + 1 };
        while (self.low ^ self.high) >> 24 == 0 {
            self.low <<= 8;
            self.high = (self.high << 8) | 0xff;
            self.shift();
        }
        bit
    }

    #[inline]
    fn raw(&mut self, bits: u32, _: u64) -> u64 {
        if bits > 32 {
            let low = self.raw_word(32);
            low | self.raw_word(bits - 32) << 32
        } else {
            self.raw_word(bits)
        }
    }
}
