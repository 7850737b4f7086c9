//! A cell of any Arrow type as a [`model::Value`], the form in which templates see it.
//!
//! What it promises: the same array gives the same value on every machine and at every time (the splitter counts a
//! row's encoded bytes, the dispatcher encodes it again, perhaps elsewhere), so neither the system's locale nor its
//! time zone files are consulted; zone names are looked up in the database that is compiled in. Text is borrowed.
//!
//! | Arrow type | value |
//! |---|---|
//! | null, or a null cell of any type | `Null` |
//! | Boolean | `Bool` |
//! | Int8 … Int64 / UInt8 … UInt64 | `Int` / `UInt` |
//! | Float16, Float32, Float64 | `Float`: the shortest decimal that reads back (a 32-bit 0.1 is 0.1) |
//! | Utf8, LargeUtf8, Utf8View | `Text`, as it is |
//! | Decimal32 … Decimal256 | `Text`, all digits of the scale: `1.50` |
//! | Date32, Date64 | `Text`: `2026-11-22` (a Date64 inside a day: `2026-11-22T10:00:00`) |
//! | Timestamp without zone | `Text`: `2026-11-22T10:00:00`, fractional digits only as needed |
//! | Timestamp with zone | `Text` in that zone: `2026-11-22T10:00:00Z`, `2026-11-22T12:00:00+02:00`; an unknown zone counts as UTC |
//! | Time32, Time64 | `Text`: `10:00:00`, fractional digits only as needed |
//! | Duration | `Text`, ISO 8601 in seconds: `PT3600S`, `-PT0.5S` |
//! | Interval | `Text`, ISO 8601 by component: `P1M2DT3.5S` |
//! | Binary kinds | `Text`: base64, standard alphabet, padded |
//! | List kinds, fixed-size lists, list views | `List` |
//! | Struct | `Struct` |
//! | Map | `Struct` with the keys as text, in the map's order |
//! | Dictionary, run-end encoded, union | the value that it stands for |
//!
//! Years beyond 0000–9999 are written with a sign, as ISO 8601's expanded form has them. What is deliberately missing:
//! extension types (they live in a field, not in an array), and any formatting that a template could do itself.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::ops::Range;
use std::sync::LazyLock;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type,
    DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType, DurationSecondType, Float16Type,
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, IntervalDayTimeType, IntervalMonthDayNanoType,
    IntervalUnit, IntervalYearMonthType, Time32MillisecondType, Time32SecondType, Time64MicrosecondType,
    Time64NanosecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::tz::TimeZoneDatabase;
use model::Value;

const SECONDS_A_DAY: i64 = 86_400;
const NANOS_A_SECOND: i64 = 1_000_000_000;

/// The cell in `row` of `array`, as the table above says. A row beyond the array is `Null`.
#[must_use]
pub fn value(array: &dyn Array, row: usize) -> Value<'_> {
    if row >= array.len() || array.is_null(row) {
        return Value::Null;
    }
    match array.data_type() {
        DataType::Null => Value::Null,
        DataType::Boolean => Value::Bool(array.as_boolean().value(row)),
        DataType::Utf8 => text(array.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => text(array.as_string::<i64>().value(row)),
        DataType::Utf8View => text(array.as_string_view().value(row)),
        DataType::Binary => base64(array.as_binary::<i32>().value(row)),
        DataType::LargeBinary => base64(array.as_binary::<i64>().value(row)),
        DataType::BinaryView => base64(array.as_binary_view().value(row)),
        DataType::FixedSizeBinary(_) => base64(array.as_fixed_size_binary().value(row)),
        kind if kind.is_integer() || kind.is_floating() || kind.is_decimal() => number(array, row),
        kind if kind.is_temporal() => temporal(array, row),
        _ => nested(array, row),
    }
}

fn text(text: &str) -> Value<'_> {
    Value::Text(Cow::Borrowed(text))
}

fn owned(text: String) -> Value<'static> {
    Value::Text(Cow::Owned(text))
}

fn base64(bytes: &[u8]) -> Value<'static> {
    owned(BASE64_STANDARD.encode(bytes))
}

fn number(array: &dyn Array, row: usize) -> Value<'static> {
    match array.data_type() {
        DataType::Int8 => Value::Int(array.as_primitive::<Int8Type>().value(row).into()),
        DataType::Int16 => Value::Int(array.as_primitive::<Int16Type>().value(row).into()),
        DataType::Int32 => Value::Int(array.as_primitive::<Int32Type>().value(row).into()),
        DataType::Int64 => Value::Int(array.as_primitive::<Int64Type>().value(row)),
        DataType::UInt8 => Value::UInt(array.as_primitive::<UInt8Type>().value(row).into()),
        DataType::UInt16 => Value::UInt(array.as_primitive::<UInt16Type>().value(row).into()),
        DataType::UInt32 => Value::UInt(array.as_primitive::<UInt32Type>().value(row).into()),
        DataType::UInt64 => Value::UInt(array.as_primitive::<UInt64Type>().value(row)),
        DataType::Float16 => Value::Float(widen(array.as_primitive::<Float16Type>().value(row).to_f32())),
        DataType::Float32 => Value::Float(widen(array.as_primitive::<Float32Type>().value(row))),
        DataType::Float64 => Value::Float(array.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal32(..) => owned(array.as_primitive::<Decimal32Type>().value_as_string(row)),
        DataType::Decimal64(..) => owned(array.as_primitive::<Decimal64Type>().value_as_string(row)),
        DataType::Decimal128(..) => owned(array.as_primitive::<Decimal128Type>().value_as_string(row)),
        DataType::Decimal256(..) => owned(array.as_primitive::<Decimal256Type>().value_as_string(row)),
        _ => Value::Null,
    }
}

/// The 64-bit number whose shortest decimal is that of the 32-bit one: a caller who stored 0.1 sees 0.1, not
/// 0.10000000149011612.
fn widen(number: f32) -> f64 {
    number.to_string().parse().unwrap_or_else(|_| f64::from(number))
}

/// A cell of a temporal type.
fn temporal(array: &dyn Array, row: usize) -> Value<'static> {
    match array.data_type() {
        DataType::Date32 => owned(date(array.as_primitive::<Date32Type>().value(row).into())),
        DataType::Date64 => owned(date64(array.as_primitive::<Date64Type>().value(row))),
        DataType::Timestamp(unit, zone) => {
            let count = match unit {
                TimeUnit::Second => array.as_primitive::<TimestampSecondType>().value(row),
                TimeUnit::Millisecond => array.as_primitive::<TimestampMillisecondType>().value(row),
                TimeUnit::Microsecond => array.as_primitive::<TimestampMicrosecondType>().value(row),
                TimeUnit::Nanosecond => array.as_primitive::<TimestampNanosecondType>().value(row),
            };
            owned(timestamp(count, *unit, zone.as_deref()))
        }
        DataType::Time32(TimeUnit::Second) => {
            time(array.as_primitive::<Time32SecondType>().value(row).into(), TimeUnit::Second)
        }
        DataType::Time32(_) => {
            time(array.as_primitive::<Time32MillisecondType>().value(row).into(), TimeUnit::Millisecond)
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            time(array.as_primitive::<Time64MicrosecondType>().value(row), TimeUnit::Microsecond)
        }
        DataType::Time64(_) => time(array.as_primitive::<Time64NanosecondType>().value(row), TimeUnit::Nanosecond),
        DataType::Duration(unit) => {
            let count = match unit {
                TimeUnit::Second => array.as_primitive::<DurationSecondType>().value(row),
                TimeUnit::Millisecond => array.as_primitive::<DurationMillisecondType>().value(row),
                TimeUnit::Microsecond => array.as_primitive::<DurationMicrosecondType>().value(row),
                TimeUnit::Nanosecond => array.as_primitive::<DurationNanosecondType>().value(row),
            };
            let sign = if count < 0 { "-" } else { "" };
            owned(format!(
                "{sign}PT{}S",
                seconds(i128::from(count).abs() * i128::from(NANOS_A_SECOND / per_second(*unit)))
            ))
        }
        DataType::Interval(unit) => owned(interval(array, row, *unit)),
        _ => Value::Null,
    }
}

/// How many of a unit make a second.
fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => NANOS_A_SECOND,
    }
}

/// Whole seconds and the nanoseconds beyond them, rounding down.
fn split_seconds(count: i64, unit: TimeUnit) -> (i64, i64) {
    let per = per_second(unit);
    (count.div_euclid(per), count.rem_euclid(per) * (NANOS_A_SECOND / per))
}

/// `2026-11-22` for a count of days since 1970-01-01 in the proleptic Gregorian calendar.
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn date(days: i64) -> String {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    if (0..=9_999).contains(&year) {
        format!("{year:04}-{month:02}-{day:02}")
    } else {
        format!("{year:+05}-{month:02}-{day:02}")
    }
}

fn date64(millis: i64) -> String {
    let (days, rest) = (millis.div_euclid(SECONDS_A_DAY * 1_000), millis.rem_euclid(SECONDS_A_DAY * 1_000));
    if rest == 0 { date(days) } else { timestamp(millis, TimeUnit::Millisecond, None) }
}

fn timestamp(count: i64, unit: TimeUnit, zone: Option<&str>) -> String {
    let (utc, nanos) = split_seconds(count, unit);
    let offset = zone.map(|zone| offset_seconds(zone, utc));
    let local = utc.saturating_add(offset.flatten().unwrap_or(0));
    let mut out =
        format!("{}T{}", date(local.div_euclid(SECONDS_A_DAY)), clock(local.rem_euclid(SECONDS_A_DAY), nanos));
    match offset {
        None => {}
        Some(None) => out.push('Z'),
        Some(Some(offset)) => {
            let (sign, size) = if offset < 0 { ('-', -offset) } else { ('+', offset) };
            // Writing into a string can't fail.
            let _ = write!(out, "{sign}{:02}:{:02}", size / 3_600, size / 60 % 60);
            if size % 60 != 0 {
                let _ = write!(out, ":{:02}", size % 60);
            }
        }
    }
    out
}

/// The zone's offset from UTC at an instant; `None` for UTC itself and for a zone that nobody knows.
fn offset_seconds(zone: &str, utc_seconds: i64) -> Option<i64> {
    static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);
    if matches!(zone, "UTC" | "Z" | "utc" | "Etc/UTC" | "+00:00") {
        return None;
    }
    if let Some(offset) = fixed_offset(zone) {
        return Some(offset);
    }
    let zone = ZONES.get(zone).ok()?;
    let instant = jiff::Timestamp::from_second(utc_seconds).ok()?;
    Some(zone.to_offset(instant).seconds().into())
}

/// The seconds of `+02:00`, `+0200` or `+02`.
fn fixed_offset(zone: &str) -> Option<i64> {
    let (sign, rest) = match zone.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let digits: String = rest.chars().filter(|c| *c != ':').collect();
    if !digits.bytes().all(|b| b.is_ascii_digit()) || !matches!(digits.len(), 2 | 4) {
        return None;
    }
    let (hours, minutes) = digits.split_at(2);
    let minutes = if minutes.is_empty() { 0 } else { minutes.parse::<i64>().ok()? };
    Some(sign * (hours.parse::<i64>().ok()? * 3_600 + minutes * 60))
}

/// `10:00:00` or `10:00:00.5`.
fn clock(seconds: i64, nanos: i64) -> String {
    format!("{:02}:{:02}:{:02}{}", seconds / 3_600, seconds / 60 % 60, seconds % 60, fraction(nanos))
}

/// A time of day; a count outside the day, which Arrow forbids but files can hold, is shown as its ISO duration.
fn time(count: i64, unit: TimeUnit) -> Value<'static> {
    let (whole, nanos) = split_seconds(count, unit);
    if (0..SECONDS_A_DAY).contains(&whole) {
        return owned(clock(whole, nanos));
    }
    owned(format!("PT{}S", seconds(i128::from(count) * i128::from(NANOS_A_SECOND / per_second(unit)))))
}

/// `.5` for half a second's nanoseconds, nothing for zero.
fn fraction(nanos: i64) -> String {
    if nanos == 0 {
        return String::new();
    }
    format!(".{nanos:09}").trim_end_matches('0').to_owned()
}

/// A count of nanoseconds as seconds: `3600`, `-0.5`.
fn seconds(nanos: i128) -> String {
    let size = nanos.unsigned_abs();
    let per = u128::from(NANOS_A_SECOND.unsigned_abs());
    let sign = if nanos < 0 { "-" } else { "" };
    // The remainder is below 10^9 and fits.
    format!("{sign}{}{}", size / per, fraction(i64::try_from(size % per).unwrap_or(0)))
}

fn interval(array: &dyn Array, row: usize, unit: IntervalUnit) -> String {
    let (months, days, nanos) = match unit {
        IntervalUnit::YearMonth => (array.as_primitive::<IntervalYearMonthType>().value(row), 0, 0),
        IntervalUnit::DayTime => {
            let value = array.as_primitive::<IntervalDayTimeType>().value(row);
            (0, value.days, i128::from(value.milliseconds) * 1_000_000)
        }
        IntervalUnit::MonthDayNano => {
            let value = array.as_primitive::<IntervalMonthDayNanoType>().value(row);
            (value.months, value.days, i128::from(value.nanoseconds))
        }
    };
    let mut out = String::from("P");
    for (count, letter) in [(months, 'M'), (days, 'D')] {
        if count != 0 {
            let _ = write!(out, "{count}{letter}");
        }
    }
    if nanos != 0 || out.len() == 1 {
        let _ = write!(out, "T{}S", seconds(nanos));
    }
    out
}

/// A cell of a type that is made of others.
fn nested(array: &dyn Array, row: usize) -> Value<'_> {
    match array.data_type() {
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let offsets = list.value_offsets();
            items(list.values(), index(offsets[row])..index(offsets[row + 1]))
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            let offsets = list.value_offsets();
            items(list.values(), index(offsets[row])..index(offsets[row + 1]))
        }
        DataType::ListView(_) => {
            let list = array.as_list_view::<i32>();
            let start = index(list.value_offset(row));
            items(list.values(), start..start + index(list.value_size(row)))
        }
        DataType::LargeListView(_) => {
            let list = array.as_list_view::<i64>();
            let start = index(list.value_offset(row));
            items(list.values(), start..start + index(list.value_size(row)))
        }
        DataType::FixedSizeList(_, size) => {
            let size = index(*size);
            items(array.as_fixed_size_list().values(), row * size..(row + 1) * size)
        }
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            Value::Struct(
                fields.iter().zip(columns).map(|(field, column)| (field.name().clone(), value(column, row))).collect(),
            )
        }
        DataType::Map(..) => {
            let map = array.as_map();
            let range = index(map.value_offsets()[row])..index(map.value_offsets()[row + 1]);
            Value::Struct(
                range.map(|entry| (key_text(&value(map.keys(), entry)), value(map.values(), entry))).collect(),
            )
        }
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            match value(dictionary.keys(), row) {
                Value::Int(key) => value(dictionary.values(), index(key)),
                Value::UInt(key) => value(dictionary.values(), index(key)),
                _ => Value::Null,
            }
        }
        DataType::RunEndEncoded(ends, _) => run(array, ends.data_type(), row),
        DataType::Union(..) => {
            let union = array.as_union();
            value(union.child(union.type_id(row)), union.value_offset(row))
        }
        _ => Value::Null,
    }
}

fn run<'a>(array: &'a dyn Array, ends: &DataType, row: usize) -> Value<'a> {
    match ends {
        DataType::Int16 => {
            let run = array.as_run::<Int16Type>();
            value(run.values(), run.get_physical_index(row))
        }
        DataType::Int32 => {
            let run = array.as_run::<Int32Type>();
            value(run.values(), run.get_physical_index(row))
        }
        _ => {
            let run = array.as_run::<Int64Type>();
            value(run.values(), run.get_physical_index(row))
        }
    }
}

/// An offset of a valid array as an index; what does not fit lies beyond every array and so reads as `Null`.
fn index<N: TryInto<usize>>(number: N) -> usize {
    number.try_into().unwrap_or(usize::MAX / 2)
}

fn items(values: &ArrayRef, range: Range<usize>) -> Value<'_> {
    Value::List(range.map(|item| value(values, item)).collect())
}

/// A map's key as text.
fn key_text(key: &Value<'_>) -> String {
    match key {
        Value::Null => "null".to_owned(),
        Value::Bool(key) => key.to_string(),
        Value::Int(key) => key.to_string(),
        Value::UInt(key) => key.to_string(),
        Value::Float(key) => key.to_string(),
        Value::Text(key) => key.clone().into_owned(),
        Value::List(items) => items.iter().map(key_text).collect::<Vec<_>>().join(","),
        Value::Struct(fields) => fields.iter().map(|(_, field)| key_text(field)).collect::<Vec<_>>().join(","),
    }
}

#[cfg(test)]
mod tests;
