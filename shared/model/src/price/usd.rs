//! Money as integers. A sum of money is a whole number of pico-dollars, a price a whole number of pico-dollars a token: so
//! the cost of a row, of a job and of a month add up exactly, in any order.
//!
//! Written down, both are decimal texts (`"0.075"`): a JSON number would be read as a float by most readers.

use std::borrow::Cow;
use std::fmt;
use std::ops::{Add, AddAssign};
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// Decimal places of a sum: pico-dollars.
const SUM_PLACES: u32 = 12;
/// Decimal places of a price for a million tokens: then a token's is whole in pico-dollars.
const PRICE_PLACES: u32 = 6;
/// The most digits before the point. No sum comes near; what is written larger is a typing error.
const MOST_DIGITS: usize = 15;

/// A sum of money in US dollars, exact to a pico-dollar (10⁻¹² $). Sums stop at the largest number instead of wrapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Usd(u128);

/// A price: US dollars for a million tokens, to six decimal places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PerMillion(u64);

/// A text that is no amount of dollars.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an amount in US dollars: write it as 0.075, with at most {1} decimal places")]
pub struct NotUsd(String, u32);

impl Usd {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// So many pico-dollars.
    #[must_use]
    pub const fn from_pico(pico: u128) -> Self {
        Self(pico)
    }

    /// In pico-dollars.
    #[must_use]
    pub const fn pico(self) -> u128 {
        self.0
    }

    /// For a gauge or a counter, which knows no exact numbers. Never add these up.
    #[must_use]
    #[allow(clippy::cast_precision_loss)] // said so
    pub fn as_f64(self) -> f64 {
        self.0 as f64 / 1e12
    }

    /// What is left of this without the other; nothing if the other is more.
    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl PerMillion {
    /// The price of so many tokens.
    #[must_use]
    pub fn of(self, tokens: u64) -> Usd {
        Usd(u128::from(self.0) * u128::from(tokens))
    }
}

impl Add for Usd {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Usd {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl std::iter::Sum for Usd {
    fn sum<I: Iterator<Item = Self>>(sums: I) -> Self {
        sums.fold(Self::ZERO, Add::add)
    }
}

/// Reads a decimal text as a whole number of its last place.
fn parse(text: &str, places: u32) -> Result<u128, NotUsd> {
    let wrong = || NotUsd(text.chars().take(40).collect(), places);
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let pointed = text.contains('.');
    let fits = (1..=MOST_DIGITS).contains(&whole.len()) && fraction.len() <= places as usize;
    if !fits || !digits(whole) || !digits(fraction) || (pointed && fraction.is_empty()) {
        return Err(wrong());
    }
    format!("{whole}{fraction:0<width$}", width = places as usize).parse().map_err(|_| wrong())
}

/// Writes a whole number of its last place as a decimal text, without trailing zeros. Each row of a merge may have one, so
/// nothing is allocated, and numbers of usual size are taken apart as such.
fn print(f: &mut fmt::Formatter<'_>, number: u128, places: u32) -> fmt::Result {
    let mut text = [b'0'; 64];
    let (mut rest, mut first) = (number, text.len());
    let mut digit = |first: &mut usize| {
        *first -= 1;
        let digit = if let Ok(small) = u64::try_from(rest) {
            rest = u128::from(small / 10);
            small % 10
        } else {
            let last = rest % 10;
            rest /= 10;
            last as u64
        };
        text[*first] = b'0' + digit as u8;
        rest > 0
    };
    for _ in 0..places {
        digit(&mut first);
    }
    let point = first;
    while digit(&mut first) {}
    let fraction = text[point..].iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1);
    let as_text = |digits: std::ops::Range<usize>| std::str::from_utf8(&text[digits]).map_err(|_| fmt::Error);
    f.write_str(as_text(first..point)?)?;
    if fraction == 0 {
        return Ok(());
    }
    f.write_str(".")?;
    f.write_str(as_text(point..point + fraction)?)
}

/// As `0.0123`. With a precision (`{:.2}`) rounded to so many places, half up.
impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(places) = f.precision().and_then(|places| u32::try_from(places).ok()).filter(|p| *p < SUM_PLACES)
        else {
            return print(f, self.0, SUM_PLACES);
        };
        let unit = 10u128.pow(SUM_PLACES - places);
        let (rounded, one) = (self.0 / unit + u128::from(self.0 % unit >= unit.div_ceil(2)), 10u128.pow(places));
        match places {
            0 => write!(f, "{rounded}"),
            _ => write!(f, "{}.{:0width$}", rounded / one, rounded % one, width = places as usize),
        }
    }
}

impl fmt::Display for PerMillion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(f, self.0.into(), PRICE_PLACES)
    }
}

impl FromStr for Usd {
    type Err = NotUsd;

    fn from_str(text: &str) -> Result<Self, NotUsd> {
        parse(text, SUM_PLACES).map(Self)
    }
}

impl FromStr for PerMillion {
    type Err = NotUsd;

    fn from_str(text: &str) -> Result<Self, NotUsd> {
        let number = parse(text, PRICE_PLACES)?;
        u64::try_from(number).map(Self).map_err(|_| NotUsd(text.to_owned(), PRICE_PLACES))
    }
}

macro_rules! as_text {
    ($($type:ident: $places:expr, $says:literal;)*) => { $(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        /// A text, or what a settings file has without quotes.
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Amount;
                impl Visitor<'_> for Amount {
                    type Value = $type;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("an amount in US dollars such as \"0.075\"")
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }

                    fn visit_u64<E: de::Error>(self, number: u64) -> Result<$type, E> {
                        self.visit_str(&number.to_string())
                    }

                    fn visit_i64<E: de::Error>(self, number: i64) -> Result<$type, E> {
                        self.visit_str(&number.to_string())
                    }

                    // The shortest text that is this float: what was written.
                    fn visit_f64<E: de::Error>(self, number: f64) -> Result<$type, E> {
                        self.visit_str(&number.to_string())
                    }
                }
                deserializer.deserialize_any(Amount)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string",
                    "description": $says,
                    "pattern": format!("^[0-9]+(\\.[0-9]{{1,{}}})?$", $places),
                })
            }
        }
    )* };
}

as_text! {
    Usd: SUM_PLACES, "US dollars, an exact decimal.";
    PerMillion: PRICE_PLACES, "US dollars for a million tokens, an exact decimal.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn usd(text: &str) -> Usd {
        text.parse().unwrap()
    }

    #[test]
    fn dollars_read_and_print_as_people_write_them() {
        for (text, pico, printed) in [
            ("0", 0, "0"),
            ("0.075", 75_000_000_000, "0.075"),
            ("12.50", 12_500_000_000_000, "12.5"),
            ("0.000000000001", 1, "0.000000000001"),
            ("007", 7_000_000_000_000, "7"),
        ] {
            assert_eq!((usd(text).pico(), usd(text).to_string().as_str()), (pico, printed));
        }
        for wrong in [
            "",
            ".",
            ".5",
            "5.",
            "-1",
            "+1",
            "1e3",
            "1,5",
            "$1",
            " 1",
            "0.0000000000001",
            "1.2.3",
            "٣",
            "1000000000000000",
        ] {
            assert!(wrong.parse::<Usd>().is_err(), "{wrong}");
        }
        assert!("0.0000001".parse::<PerMillion>().unwrap_err().to_string().contains("at most 6 decimal places"));
    }

    #[test]
    fn people_get_rounded_sums_on_demand() {
        let sum = usd("1.995");
        assert_eq!([format!("{sum:.2}"), format!("{sum:.0}"), format!("{sum:.1}")], ["2.00", "2", "2.0"]);
        assert_eq!(format!("{:.6}", usd("0.0000004")), "0.000000");
        assert_eq!(format!("{:.12}", usd("0.1")), "0.1");
    }

    #[test]
    fn a_price_without_quotes_is_the_decimal_that_was_written() {
        let read = |json: &str| serde_json::from_str::<PerMillion>(json).map(|price| price.to_string());
        assert_eq!(read("0.075").unwrap(), "0.075");
        assert_eq!(read("2").unwrap(), "2");
        assert_eq!(read("\"0.30\"").unwrap(), "0.3");
        assert!(read("-1").is_err() && read("0.1234567").is_err() && read("true").is_err() && read("1e300").is_err());
    }

    #[test]
    fn the_price_of_a_million_tokens_is_the_price() {
        let price: PerMillion = "0.075".parse().unwrap();
        assert_eq!(price.of(1_000_000), usd("0.075"));
        assert_eq!(price.of(1), usd("0.000000075"));
        assert!(PerMillion(u64::MAX).of(u64::MAX) + Usd(u128::MAX) == Usd(u128::MAX));
    }

    proptest! {
        #[test]
        fn a_sum_reads_back_as_it_was_printed(pico in 0u128..10u128.pow(27)) {
            prop_assert_eq!(Usd(pico).to_string().parse(), Ok(Usd(pico)));
            let json = serde_json::to_string(&Usd(pico)).unwrap();
            prop_assert_eq!(serde_json::from_str::<Usd>(&json).unwrap(), Usd(pico));
        }

        #[test]
        fn a_price_reads_back_as_it_was_printed(micro: u64) {
            prop_assert_eq!(PerMillion(micro).to_string().parse(), Ok(PerMillion(micro)));
        }

        #[test]
        fn sums_do_not_depend_on_their_order(mut sums in proptest::collection::vec(any::<u64>(), 0..40)) {
            let sum = |sums: &[u64]| sums.iter().map(|pico| Usd(u128::from(*pico))).sum::<Usd>();
            let before = sum(&sums);
            sums.sort_unstable();
            prop_assert_eq!(sum(&sums), before);
        }

        #[test]
        fn no_text_is_read_wrongly_or_panics(text in ".{0,30}") {
            if let Ok(sum) = text.parse::<Usd>() {
                prop_assert!(text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'));
                prop_assert_eq!(sum.to_string().parse(), Ok(sum));
            }
        }
    }
}
