//! The row's values as minijinja sees them.
//!
//! Null is an object of its own and not minijinja's `None`, because `None` becomes the word `None` in each text operation
//! (`title|trim`, `a ~ b`), and such a word in a paid prompt goes unnoticed. Lists and structs are objects that print as
//! JSON and keep the table's order.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use minijinja::value::{Enumerator, Object, ObjectRepr, Value, ValueKind};
use minijinja::{Error, ErrorKind};

use crate::{json, write_float};

/// Writes a cell as a prompt has it.
pub(crate) fn write_text(value: &model::Value<'_>, out: &mut String) {
    match value {
        model::Value::Null => {}
        model::Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        model::Value::Int(number) => push_display(number, out),
        model::Value::UInt(number) => push_display(number, out),
        model::Value::Float(number) => write_float(*number, out),
        model::Value::Text(text) => out.push_str(text),
        nested @ (model::Value::List(_) | model::Value::Struct(_)) => push_display(&dynamic(nested), out),
    }
}

fn push_display(value: &dyn fmt::Display, out: &mut String) {
    use fmt::Write as _;
    // Writing to a `String` can't fail.
    let _ = write!(out, "{value}");
}

/// Writes a value that came out of an expression as a prompt has it.
pub(crate) fn write_dynamic(value: &Value, out: &mut String) -> Result<(), Error> {
    if is_none(value) {
        return Ok(());
    }
    match value.kind() {
        ValueKind::Invalid => return Err(Error::new(ErrorKind::InvalidOperation, value.to_string())),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => json::write_compact(value, out)?,
        _ => push_display(value, out),
    }
    Ok(())
}

/// The `none` test: a null of the table, or the literal `none`.
pub(crate) fn is_none(value: &Value) -> bool {
    value.is_none() || value.downcast_object_ref::<Null>().is_some()
}

/// A cell as minijinja has it.
fn dynamic(value: &model::Value<'_>) -> Value {
    static NULL: LazyLock<Value> = LazyLock::new(|| Value::from_object(Null));
    match value {
        model::Value::Null => NULL.clone(),
        model::Value::Bool(flag) => Value::from(*flag),
        model::Value::Int(number) => Value::from(*number),
        model::Value::UInt(number) => Value::from(*number),
        model::Value::Float(number) => Value::from(*number),
        model::Value::Text(text) => Value::from(text.as_ref()),
        model::Value::List(items) => Value::from_object(List(items.iter().map(dynamic).collect())),
        model::Value::Struct(fields) => {
            let names = Arc::new(Names::new(fields.iter().map(|(name, _)| name.clone())));
            Value::from_object(Fields { names, values: fields.iter().map(|(_, value)| dynamic(value)).collect() })
        }
    }
}

/// The context of one rendering: the columns by name, and `row`.
pub(crate) fn context(names: Arc<Names>, values: &[model::Value<'_>]) -> Value {
    let row = Arc::new(Fields { names, values: values.iter().map(dynamic).collect() });
    Value::from_object(Context(row))
}

/// Names in order, with their places.
#[derive(Debug)]
pub(crate) struct Names {
    ordered: Vec<String>,
    places: HashMap<String, usize>,
}

impl Names {
    pub(crate) fn new(names: impl Iterator<Item = String>) -> Self {
        let ordered: Vec<String> = names.collect();
        let places = ordered.iter().enumerate().map(|(place, name)| (name.clone(), place)).collect();
        Self { ordered, places }
    }
}

/// A null of the table.
#[derive(Debug)]
struct Null;

impl Object for Null {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn get_value(self: &Arc<Self>, _: &Value) -> Option<Value> {
        Some(dynamic(&model::Value::Null))
    }

    fn is_true(self: &Arc<Self>) -> bool {
        false
    }

    fn render(self: &Arc<Self>, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

/// A list.
#[derive(Debug)]
struct List(Vec<Value>);

impl Object for List {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.0.get(key.as_usize()?).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.0.len())
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        render_json(Value::from_dyn_object(Arc::clone(self)), f)
    }
}

/// A struct, a map, or the whole row.
#[derive(Debug)]
struct Fields {
    names: Arc<Names>,
    values: Vec<Value>,
}

impl Fields {
    fn get(&self, name: &str) -> Option<Value> {
        self.values.get(*self.names.places.get(name)?).cloned()
    }
}

impl Object for Fields {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        self.get(key)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.names.ordered.iter().map(|name| Value::from(name.as_str())).collect())
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        render_json(Value::from_dyn_object(Arc::clone(self)), f)
    }
}

fn render_json(value: Value, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut out = String::new();
    json::write_compact(&value, &mut out).map_err(|_| fmt::Error)?;
    f.write_str(&out)
}

/// What a template's variables are looked up in. `row` is always the whole row.
#[derive(Debug)]
struct Context(Arc<Fields>);

impl Object for Context {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        if key == "row" {
            return Some(Value::from_dyn_object(Arc::clone(&self.0)));
        }
        self.0.get(key)
    }
}
