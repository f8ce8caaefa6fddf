//! Values as integers: most values are decimal numbers with few places, whose steps are small integers.

/// How a series' values map to integers, losslessly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scale(u8);

const POWERS: [f64; 10] = [1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
const INVERSE: [f64; 10] = [1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9];
/// Integers beyond this are not all floats.
const EXACT: f64 = 9_007_199_254_740_992.0;

impl Scale {
    /// The float's bits, in the order of the values.
    pub(super) const BITS: Self = Self(19);
    /// Bits of a scale's number on the wire.
    pub(super) const WIRE_BITS: u32 = 5;

    /// The scale of a number on the wire: 0 to 9 divides by that power of ten, 10 to 18 multiplies by 0.1 to 1e-9
    /// (which rounds differently), 19 takes the float's bits.
    pub(super) fn from_wire(number: u64) -> Option<Self> {
        (number <= 19).then_some(Self(number as u8))
    }

    /// The number on the wire.
    pub(super) fn to_wire(self) -> u64 {
        u64::from(self.0)
    }

    /// The value of an integer.
    #[inline]
    pub(super) fn value(self, n: i64) -> f64 {
        match self.0 {
            0 => n as f64,
            k @ 1..=9 => n as f64 / POWERS[usize::from(k)],
            k @ 10..=18 => n as f64 * INVERSE[usize::from(k - 9)],
            _ => f64::from_bits(bits_of_ordered(n)),
        }
    }

    /// The integer nearest to a value, of whatever sense.
    #[inline]
    fn nearest(self, value: f64) -> i64 {
        match self.0 {
            0 => value as i64,
            k @ 1..=9 => (value * POWERS[usize::from(k)]).round_ties_even() as i64,
            k @ 10..=18 => (value * POWERS[usize::from(k - 9)]).round_ties_even() as i64,
            _ => ordered_of_bits(value.to_bits()),
        }
    }

    /// The integer of a value, if the way back gives the same bits. Infinities and NaNs have none: they say nothing of
    /// the values around them.
    #[inline]
    pub(super) fn exact(self, value: f64) -> Option<i64> {
        if self == Self::BITS && !value.is_finite() {
            return None;
        }
        let n = self.nearest(value);
        (self.value(n).to_bits() == value.to_bits()).then_some(n)
    }

    /// The integer that stands for a value that the scale may not hold: what the next one is predicted from.
    pub(super) fn rough(self, value: f64) -> i64 {
        self.nearest(value)
    }

    /// The scale with the fewest decimal places that holds the value.
    pub(super) fn of(value: f64) -> Self {
        if !value.is_finite() {
            return Self::BITS;
        }
        for k in 0..=9u8 {
            if (value * POWERS[usize::from(k)]).abs() > EXACT {
                break;
            }
            if Self(k).exact(value).is_some() {
                return Self(k);
            }
            if k > 0 && Self(k + 9).exact(value).is_some() {
                return Self(k + 9);
            }
        }
        Self::BITS
    }
}

/// Bits as an integer that is in the order of the values: negative floats count backwards.
fn ordered_of_bits(bits: u64) -> i64 {
    let signed = bits as i64;
    signed ^ (((signed >> 63) as u64) >> 1) as i64
}

fn bits_of_ordered(n: i64) -> u64 {
    (n ^ (((n >> 63) as u64) >> 1) as i64) as u64
}
