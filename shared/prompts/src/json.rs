//! Values of a template as JSON: compact, in their own order, and with nothing escaped beyond what JSON asks for (minijinja's
//! own `tojson` also escapes for HTML, which a prompt has no use for).

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind};

use crate::values::{is_none, write_dynamic};
use crate::{MAX_PROMPT_BYTES, budget};

/// How deep values may be nested: deeper than any table's types, and shallow enough for the stack.
const MAX_DEPTH: usize = 128;

/// The `tojson` filter: compact, or with `indent` spaces a level.
pub(crate) fn tojson(value: &Value, indent: Option<usize>, options: Kwargs) -> Result<String, Error> {
    let indent = match indent {
        Some(indent) => Some(indent),
        None => options.get("indent")?,
    };
    options.assert_all_used()?;
    let mut out = String::new();
    write(value, indent.map(|width| width.min(16)), 0, &mut out)?;
    Ok(out)
}

/// Writes a value as compact JSON.
pub(crate) fn write_compact(value: &Value, out: &mut String) -> Result<(), Error> {
    write(value, None, 0, out)
}

fn write(value: &Value, indent: Option<usize>, depth: usize, out: &mut String) -> Result<(), Error> {
    if out.len() > MAX_PROMPT_BYTES {
        return Err(budget::exceed(budget::Exceeded::Prompt));
    }
    if depth > MAX_DEPTH {
        return Err(Error::new(ErrorKind::InvalidOperation, "a value is nested too deep for JSON"));
    }
    if is_none(value) {
        out.push_str("null");
        return Ok(());
    }
    match value.kind() {
        ValueKind::Undefined => return Err(Error::from(ErrorKind::UndefinedError)),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => {
            let finite = value.is_integer() || f64::try_from(value.clone()).is_ok_and(f64::is_finite);
            if finite { write_dynamic(value, out)? } else { out.push_str("null") }
        }
        ValueKind::Seq | ValueKind::Iterable => {
            out.push('[');
            let mut empty = true;
            for item in value.try_iter()? {
                next_item(&mut empty, indent, depth, out);
                write(&item, indent, depth + 1, out)?;
            }
            end(empty, indent, depth, ']', out);
        }
        ValueKind::Map => {
            out.push('{');
            let mut empty = true;
            for key in value.try_iter()? {
                next_item(&mut empty, indent, depth, out);
                match key.as_str() {
                    Some(text) => write_string(text, out),
                    None => write_string(&key.to_string(), out),
                }
                out.push_str(if indent.is_some() { ": " } else { ":" });
                write(&value.get_item(&key)?, indent, depth + 1, out)?;
            }
            end(empty, indent, depth, '}', out);
        }
        _ => match value.as_str() {
            Some(text) => write_string(text, out),
            None => write_string(&value.to_string(), out),
        },
    }
    Ok(())
}

fn next_item(empty: &mut bool, indent: Option<usize>, depth: usize, out: &mut String) {
    if !std::mem::replace(empty, false) {
        out.push(',');
    }
    new_line(indent, depth + 1, out);
}

fn end(empty: bool, indent: Option<usize>, depth: usize, bracket: char, out: &mut String) {
    if !empty {
        new_line(indent, depth, out);
    }
    out.push(bracket);
}

fn new_line(indent: Option<usize>, depth: usize, out: &mut String) {
    if let Some(width) = indent {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', width * depth));
    }
}

fn write_string(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if u32::from(control) < 0x20 => {
                out.push_str("\\u00");
                out.push(char::from_digit(u32::from(control) >> 4, 16).unwrap_or('0'));
                out.push(char::from_digit(u32::from(control) & 15, 16).unwrap_or('0'));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}
