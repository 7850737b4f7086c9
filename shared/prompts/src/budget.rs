//! What one rendering may build: [`MAX_BUILT_BYTES`] of texts and list elements in between, besides the prompt itself.
//!
//! minijinja bounds a template's steps, but one step can double a text, and forty of them ask for terabytes. So each text or
//! list that is built is charged here: a text by its length, a list or map by 16 bytes for each element of it and of what
//! lies in it. What is let go again is not given back: the bound is on what was built, which is simpler to reason about
//! and at least what is held. `rewrite` puts the charging filters into the template, `bounded` charges minijinja's own
//! filters, and the formatter charges what is written.
//!
//! A list that passes also has a bounded depth and a bounded size when it is spelt out (a list of a list twice, forty times
//! over, is small in memory and endless as text), lies in memory as itself (a view of a view of a view … needs stack for
//! each), and holds no namespace (which could then hold itself).
//!
//! The account is a thread's own: a rendering never leaves its thread, and minijinja has no place of its own for it that
//! every filter could reach.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind};

use crate::values::is_none;
use crate::{MAX_BUILT_BYTES, MAX_PROMPT_BYTES, operations};

/// The filter that charges its value.
pub(crate) const BUILT: &str = "batchmill_built";
/// The same for what a namespace is given, which must not be a namespace.
pub(crate) const HELD: &str = "batchmill_held";

/// What an element of a list is charged.
pub(crate) const ELEMENT_BYTES: usize = 16;
/// The most elements of one list, with all that lies in it.
const MAX_ELEMENTS: usize = 1_000_000;
/// How deep lists may lie in one another.
const MAX_DEPTH: usize = 128;

/// Which bound a rendering has run into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exceeded {
    /// [`MAX_BUILT_BYTES`].
    Built,
    /// [`MAX_PROMPT_BYTES`].
    Prompt,
}

thread_local! {
    static LEFT: Cell<usize> = const { Cell::new(MAX_BUILT_BYTES) };
    static EXCEEDED: Cell<Option<Exceeded>> = const { Cell::new(None) };
}

/// What is left of the account.
pub(crate) fn left() -> usize {
    LEFT.get()
}

/// Starts a rendering's account.
pub(crate) fn start() {
    LEFT.set(MAX_BUILT_BYTES);
    EXCEEDED.set(None);
}

/// The bound that this rendering has run into, if any.
pub(crate) fn exceeded() -> Option<Exceeded> {
    EXCEEDED.get()
}

/// Notes that a bound is exceeded, and makes the error that ends the rendering.
pub(crate) fn exceed(what: Exceeded) -> Error {
    EXCEEDED.set(Some(what));
    Error::new(ErrorKind::InvalidOperation, "the template builds too much for this row")
}

/// Charges bytes.
pub(crate) fn charge(bytes: usize) -> Result<(), Error> {
    match LEFT.get().checked_sub(bytes) {
        Some(left) => {
            LEFT.set(left);
            Ok(())
        }
        None => Err(exceed(Exceeded::Built)),
    }
}

/// Whether a filter's name is one that only `rewrite` may write.
pub(crate) fn is_own(name: &str) -> bool {
    [BUILT, HELD].contains(&name) || operations::NAMES.contains(&name)
}

/// Puts the charging filters into an environment.
pub(crate) fn add(environment: &mut Environment<'static>) {
    environment.add_filter(BUILT, built);
    environment.add_filter(HELD, held);
    operations::add(environment);
}

/// Charges a value, and gives it back.
pub(crate) fn built(value: Value) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        charge(text.len() + ELEMENT_BYTES)?;
        return Ok(value);
    }
    match value.kind() {
        ValueKind::Iterable if is_none(&value) => Ok(value),
        // The engine panics when it walks through some empty views (`[][::-1]`, 3.0.5): whoever looks into one shall meet that, and
        // nobody else.
        ValueKind::Iterable => match catch_unwind(AssertUnwindSafe(|| items(&value))) {
            Ok(items) => Ok(Value::make_object_iterable(items?, |items| Box::new(items.iter().cloned()))),
            Err(_) => Ok(value),
        },
        ValueKind::Seq if is_of_type(&value, "MergeSeq") => Ok(Value::from(items(&value)?)),
        ValueKind::Seq | ValueKind::Map => {
            if !is_namespace(&value) {
                measure(&value)?;
            }
            Ok(value)
        }
        _ => Ok(value),
    }
}

fn held(value: Value) -> Result<Value, Error> {
    refuse_namespace(&value)?;
    built(value)
}

/// What a view of other values shows.
fn items(view: &Value) -> Result<Vec<Value>, Error> {
    let mut measure = Measure::default();
    let mut items = Vec::new();
    for item in view.try_iter()? {
        measure.value(&item, 1)?;
        items.push(item);
    }
    Ok(items)
}

/// Charges a list or map with all that lies in it.
pub(crate) fn measure(value: &Value) -> Result<(), Error> {
    Measure::default().value(value, 0)
}

/// A walk through a value.
#[derive(Default)]
struct Measure {
    text: usize,
    elements: usize,
}

impl Measure {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        charge(ELEMENT_BYTES)?;
        self.elements += 1;
        self.text += value.as_str().map_or(0, str::len);
        if self.text > MAX_PROMPT_BYTES || self.elements > MAX_ELEMENTS {
            return Err(exceed(Exceeded::Built));
        }
        if is_none(value) || !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable | ValueKind::Map) {
            return Ok(());
        }
        if depth > MAX_DEPTH {
            let message = format!("lists lie more than {MAX_DEPTH} deep in one another");
            return Err(Error::new(ErrorKind::InvalidOperation, message));
        }
        refuse_namespace(value)?;
        let is_map = value.kind() == ValueKind::Map;
        for item in value.try_iter()? {
            self.value(&item, depth + 1)?;
            if is_map {
                self.value(&value.get_item(&item)?, depth + 1)?;
            }
        }
        Ok(())
    }
}

fn is_namespace(value: &Value) -> bool {
    is_of_type(value, "Namespace")
}

/// Whether a value is an object of one of minijinja's private types.
fn is_of_type(value: &Value, name: &str) -> bool {
    value.as_object().is_some_and(|object| object.type_name().rsplit("::").next() == Some(name))
}

fn refuse_namespace(value: &Value) -> Result<(), Error> {
    if is_namespace(value) {
        let message = "a namespace can't lie in another one, or in a list or map: use one with more attributes";
        return Err(Error::new(ErrorKind::InvalidOperation, message));
    }
    Ok(())
}
