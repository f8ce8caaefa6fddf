//! Adaptive probabilities and their mixing, in integers only, so that both ends compute the same.
//!
//! A [`Prob`] learns how often a decision is true: fast at first (1/n), then with a floor to its rate, so that it
//! follows change. A [`Mixer`] weighs several of them in the logistic domain and learns the weights (the method of
//! the PAQ family; M. Mahoney, "Adaptive Weighing of Context Models for Lossless Data Compression", 2005).

use super::range::Coder;

/// An adaptive probability.
#[derive(Debug, Clone, Copy)]
pub(super) struct Prob {
    p: u16,
    seen: u16,
}

/// How many decisions a shared context remembers, about.
pub(super) const SLOW: u16 = 160;
/// How many decisions a series' own context remembers, about.
pub(super) const FAST: u16 = 24;

/// `32768 / (n + 1.6)`: the rate after n decisions.
static RATES: [i32; 256] = {
    let mut rates = [0; 256];
    let mut n = 0;
    while n < 256 {
        rates[n] = (327_680 / (10 * n + 16)) as i32;
        n += 1;
    }
    rates
};

impl Prob {
    /// A probability that begins at `p / 65536`.
    pub(super) const fn at(p: u16) -> Self {
        Self { p, seen: 0 }
    }

    #[inline]
    fn learn(&mut self, bit: bool, memory: u16) {
        let target = -i32::from(bit) & 65535;
        let rate = RATES[usize::from(self.seen) & 255];
        self.p = (i32::from(self.p) + (((target - i32::from(self.p)) * rate) >> 15)) as u16;
        self.seen += u16::from(self.seen < memory);
    }

    /// Codes one decision by this probability alone.
    #[inline]
    pub(super) fn code<C: Coder>(&mut self, coder: &mut C, bit: bool) -> bool {
        let bit = coder.bit(u32::from(self.p).clamp(16, 65520), bit);
        self.learn(bit, SLOW);
        bit
    }

    #[inline]
    fn stretched(self) -> i32 {
        i32::from(STRETCH[usize::from(self.p >> 4)])
    }
}

impl Default for Prob {
    fn default() -> Self {
        Self::at(1 << 15)
    }
}

/// `4096 / (1 + e^(-x/256))` by interpolation.
const fn squash(x: i32) -> i32 {
    const POINTS: [i32; 33] = [
        1, 2, 3, 6, 10, 16, 27, 45, 73, 120, 194, 310, 488, 747, 1101, 1546, 2047, 2549, 2994, 3348, 3607,
        3785, 3901, 3975, 4024, 4050, 4068, 4079, 4085, 4089, 4092, 4093, 4094,
    ];
    if x > 2047 {
        return 4095;
    }
    if x < -2047 {
        return 1;
    }
    let weight = x & 127;
    let at = ((x >> 7) + 16) as usize;
    (POINTS[at] * (128 - weight) + POINTS[at + 1] * weight + 64) >> 7
}

/// The inverse of [`squash`].
static STRETCH: [i16; 4096] = {
    let mut table = [2047; 4096];
    let mut filled = 0;
    let mut x = -2047;
    while x <= 2047 {
        let p = squash(x);
        while filled <= p {
            table[filled as usize] = x as i16;
            filled += 1;
        }
        x += 1;
    }
    table
};

/// [`squash`] of -2048 to 2047.
static SQUASH: [u16; 4096] = {
    let mut table = [0; 4096];
    let mut at = 0;
    while at < 4096 {
        table[at] = squash(at as i32 - 2048) as u16;
        at += 1;
    }
    table
};

/// Weighs three probabilities.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mixer([i32; 3]);

impl Default for Mixer {
    fn default() -> Self {
        Self([26_000; 3])
    }
}

impl Mixer {
    /// Codes one decision by the mix, and lets all parts learn from it. The third probability is a series' own.
    #[inline]
    pub(super) fn code<C: Coder>(
        &mut self,
        coder: &mut C,
        first: &mut Prob,
        second: &mut Prob,
        own: &mut Prob,
        bit: bool,
    ) -> bool {
        let inputs = [first.stretched(), second.stretched(), own.stretched()];
        let dot: i32 = inputs.iter().zip(&self.0).map(|(x, w)| x * w).sum();
        let p = i32::from(SQUASH[((dot >> 16).clamp(-2048, 2047) + 2048) as usize]);
        let bit = coder.bit((p as u32) << 4 | 8, bit);
        let error = ((i32::from(bit) << 12) - p) * LEARNING_RATE;
        for (weight, x) in self.0.iter_mut().zip(inputs) {
            *weight = (*weight + ((x * error + 0x2000) >> 14)).clamp(-MAX_WEIGHT, MAX_WEIGHT);
        }
        first.learn(bit, SLOW);
        second.learn(bit, SLOW);
        own.learn(bit, FAST);
        bit
    }
}

/// How fast weights follow. Three inputs of at most 2^11 times this error of at most 2^15 stay within 32 bits.
const LEARNING_RATE: i32 = 6;
/// A weight of 4.0: three inputs of at most 2^11 times it stay within 32 bits.
const MAX_WEIGHT: i32 = 1 << 18;
