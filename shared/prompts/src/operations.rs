//! The operators that build texts and lists, as filters: they charge before they build, and build a chain's text once
//! instead of operator by operator.
//!
//! Whatever is neither text nor a plain number is left to minijinja's own operators, which it has only as expressions.

use std::fmt::Write as _;
use std::sync::LazyLock;

use minijinja::value::{Rest, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior};

use crate::budget::{ELEMENT_BYTES, Exceeded, built, charge, exceed, left};

/// What `a ~ b ~ c` becomes.
pub(crate) const JOINED: &str = "batchmill_joined";
/// What `a + b + c` becomes.
pub(crate) const PLUS: &str = "batchmill_plus";
/// What `a * b` becomes.
pub(crate) const TIMES: &str = "batchmill_times";
/// All of them.
pub(crate) const NAMES: [&str; 3] = [JOINED, PLUS, TIMES];

/// Puts them into an environment.
pub(crate) fn add(environment: &mut Environment<'static>) {
    environment.add_filter(JOINED, joined);
    environment.add_filter(PLUS, plus);
    environment.add_filter(TIMES, times);
}

/// `a ~ b ~ c`.
fn joined(first: Value, others: Rest<Value>) -> Result<Value, Error> {
    concatenated(&first, &others)
}

/// The text of some values, one after the other.
fn concatenated(first: &Value, others: &[Value]) -> Result<Value, Error> {
    let parts = || std::iter::once(first).chain(others);
    let mut text =
        Bounded(String::with_capacity(parts().filter_map(Value::as_str).map(str::len).sum::<usize>().min(left())));
    for part in parts() {
        if part.is_undefined() {
            return Err(Error::from(ErrorKind::UndefinedError));
        }
        let written = match part.as_str() {
            Some(part) => text.write_str(part),
            None => write!(text, "{part}"),
        };
        written.map_err(|_| exceed(Exceeded::Built))?;
    }
    charge(text.0.len() + ELEMENT_BYTES)?;
    Ok(Value::from(text.0))
}

/// A text that stops growing where the account is spent.
struct Bounded(String);

impl std::fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        if self.0.len() + text.len() > left() {
            return Err(std::fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

/// `a + b + c`.
fn plus(first: Value, others: Rest<Value>) -> Result<Value, Error> {
    if first.as_str().is_some() && others.iter().all(|other| other.as_str().is_some()) {
        return concatenated(&first, &others);
    }
    others.iter().try_fold(first, |sum, other| match numbers(&sum, other) {
        Some(Numbers::Integers(a, b)) if a.checked_add(b).is_some() => Ok(Value::from(a + b)),
        Some(Numbers::Floats(a, b)) => Ok(Value::from(a + b)),
        _ if sum.as_str().is_some() && other.as_str().is_some() => concatenated(&sum, std::slice::from_ref(other)),
        _ => built(plain("a + b", sum, other.clone())?),
    })
}

/// `a * b`. minijinja's own repeats a text before anyone can ask how long it gets.
fn times(a: Value, b: Value) -> Result<Value, Error> {
    let text = a.as_str().map(|text| (text, &b)).or_else(|| b.as_str().map(|text| (text, &a)));
    if let Some((text, count)) = text {
        let Some(count) = count.as_usize() else {
            let message = "strings can only be multiplied with integers";
            return Err(Error::new(ErrorKind::InvalidOperation, message));
        };
        charge(text.len().saturating_mul(count).saturating_add(ELEMENT_BYTES))?;
        return Ok(Value::from(text.repeat(count)));
    }
    match numbers(&a, &b) {
        Some(Numbers::Integers(a, b)) if a.checked_mul(b).is_some() => Ok(Value::from(a * b)),
        Some(Numbers::Floats(a, b)) => Ok(Value::from(a * b)),
        _ => built(plain("a * b", a, b)?),
    }
}

/// Two numbers of one kind.
enum Numbers {
    Integers(i64, i64),
    Floats(f64, f64),
}

/// Two values as numbers, unless only minijinja knows how.
fn numbers(a: &Value, b: &Value) -> Option<Numbers> {
    if a.kind() != ValueKind::Number || b.kind() != ValueKind::Number {
        return None;
    }
    if a.is_integer() && b.is_integer() {
        return Some(Numbers::Integers(i64::try_from(a.clone()).ok()?, i64::try_from(b.clone()).ok()?));
    }
    Some(Numbers::Floats(f64::try_from(a.clone()).ok()?, f64::try_from(b.clone()).ok()?))
}

/// minijinja's own operator.
fn plain(expression: &'static str, a: Value, b: Value) -> Result<Value, Error> {
    static PLAIN: LazyLock<Environment<'static>> = LazyLock::new(|| {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        // It would tell of an `a` and a `b` that the template does not have.
        environment.set_debug(false);
        environment
    });
    PLAIN.compile_expression(expression)?.eval(minijinja::context! { a => a, b => b }).map_err(|error| {
        // Without the place, which is that of this expression and not of the template's.
        error.detail().map_or_else(|| Error::from(error.kind()), |detail| Error::new(error.kind(), detail.to_owned()))
    })
}
