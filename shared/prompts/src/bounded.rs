//! minijinja's own filters and functions, behind bounds. What each makes is charged to the rendering's account (also what it
//! makes as part of another: `map('upper')`), and those whose arguments or text say how much comes out are asked first. A
//! number from outside must not ask for all memory.

use minijinja::value::{Kwargs, Rest, Value, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, filters};

use crate::{MAX_PROMPT_BYTES, budget, json};

/// The largest count that `batch` and `slice` take, and the widest field of `format`.
const MAX_COUNT: usize = 10_000;
/// The most pieces that a text is taken apart into.
const MAX_PIECES: usize = 1_000_000;

type Bound = fn(&[Value]) -> Result<(), String>;

/// Puts the bounded filters and functions into an environment.
pub(crate) fn add(environment: &mut Environment<'static>) {
    for (name, own, bound) in texts().into_iter().chain(lists()) {
        environment.add_filter(name, move |state: &mut State<'_, '_>, arguments: Rest<ValueOrKwargs>| {
            let arguments = arguments.into_values();
            bound(&arguments).map_err(|what| Error::new(ErrorKind::InvalidOperation, format!("{name}: {what}")))?;
            budget::built(own.call(state, &arguments)?)
        });
    }
    let functions: Vec<(String, Value)> = environment.globals().map(|(name, own)| (name.to_owned(), own)).collect();
    for (name, own) in functions {
        // What `dict` and `namespace` are given may be large; what `range` gives is bounded, and made as it is used.
        environment.add_function(name, move |state: &mut State<'_, '_>, arguments: Rest<ValueOrKwargs>| {
            let arguments = arguments.into_values();
            arguments.iter().try_for_each(budget::measure)?;
            own.call(state, &arguments)
        });
    }
}

/// Filters that make a text. Those that pick or count something build nothing, and stay as they are.
fn texts() -> Vec<(&'static str, Value, Bound)> {
    vec![
        ("capitalize", Value::from_function(filters::capitalize), unbounded),
        ("e", Value::from_function(filters::escape), unbounded),
        ("escape", Value::from_function(filters::escape), unbounded),
        ("format", Value::from_function(filters::format), formatted),
        ("indent", Value::from_function(filters::indent), indented),
        ("join", Value::from_function(filters::join), joined),
        ("lower", Value::from_function(filters::lower), unbounded),
        ("replace", Value::from_function(filters::replace), replaced),
        ("string", Value::from_function(filters::string), unbounded),
        ("title", Value::from_function(filters::title), unbounded),
        ("tojson", Value::from_function(json::tojson), unbounded),
        ("trim", Value::from_function(filters::trim), unbounded),
        ("upper", Value::from_function(filters::upper), unbounded),
        ("urlencode", Value::from_function(filters::urlencode), unbounded),
    ]
}

/// Filters that make a list of a list, or of a text's characters.
fn lists() -> Vec<(&'static str, Value, Bound)> {
    vec![
        ("batch", Value::from_function(filters::batch), counts),
        ("chain", Value::from_function(filters::chain), pieces),
        ("dictsort", Value::from_function(filters::dictsort), pieces),
        ("groupby", Value::from_function(filters::groupby), pieces),
        ("items", Value::from_function(filters::items), pieces),
        ("lines", Value::from_function(filters::lines), lines),
        ("list", Value::from_function(filters::list), pieces),
        ("map", Value::from_function(filters::map), pieces),
        ("max", Value::from_function(filters::max), pieces),
        ("min", Value::from_function(filters::min), pieces),
        ("reject", Value::from_function(filters::reject), pieces),
        ("rejectattr", Value::from_function(filters::rejectattr), pieces),
        ("reverse", Value::from_function(filters::reverse), unbounded),
        ("select", Value::from_function(filters::select), pieces),
        ("selectattr", Value::from_function(filters::selectattr), pieces),
        ("slice", Value::from_function(filters::slice), counts),
        ("sort", Value::from_function(filters::sort), pieces),
        ("split", Value::from_function(filters::split), split),
        ("sum", Value::from_function(filters::sum), pieces),
        ("unique", Value::from_function(filters::unique), pieces),
        ("zip", Value::from_function(filters::zip), pieces),
    ]
}

fn unbounded(_: &[Value]) -> Result<(), String> {
    Ok(())
}

/// A text among the arguments is taken apart into its characters.
fn pieces(arguments: &[Value]) -> Result<(), String> {
    arguments.iter().filter_map(Value::as_str).try_for_each(|text| at_most(text.len()))
}

fn lines(arguments: &[Value]) -> Result<(), String> {
    let text = arguments.first().and_then(Value::as_str).unwrap_or_default();
    at_most(text.bytes().filter(|byte| *byte == b'\n').count())
}

fn split(arguments: &[Value]) -> Result<(), String> {
    let text = arguments.first().and_then(Value::as_str).unwrap_or_default();
    let between = arguments.get(1).and_then(Value::as_str);
    at_most(between.map_or_else(|| text.split_whitespace().count(), |between| text.matches(between).count()))
}

fn at_most(pieces: usize) -> Result<(), String> {
    if pieces > MAX_PIECES { Err(format!("a text comes apart into at most {MAX_PIECES} pieces")) } else { Ok(()) }
}

fn counts(arguments: &[Value]) -> Result<(), String> {
    let asked = arguments.get(1).and_then(Value::as_usize).unwrap_or(0);
    if asked > MAX_COUNT {
        Err(format!("at most {MAX_COUNT} can be asked for"))
    } else {
        pieces(arguments.get(..1).unwrap_or_default())
    }
}

/// A width is a number in the format, or `*`, which stands for an argument. Each field can hold the longest argument.
fn formatted(arguments: &[Value]) -> Result<(), String> {
    let format = arguments.first().and_then(Value::as_str).unwrap_or_default();
    let longest = format.split(|c: char| !c.is_ascii_digit()).map(str::len).max().unwrap_or(0);
    if longest > 4 || format.contains('*') {
        return Err("a width has at most four digits, and can't be an argument".to_owned());
    }
    let widest = format.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).max();
    let argument = arguments.iter().skip(1).map(spelt_length).max().unwrap_or(0).max(widest.unwrap_or(0));
    within(format.len().saturating_add(format.matches('%').count().saturating_mul(argument)))
}

/// How long a value is as text: at least, and at most where it is no list.
fn spelt_length(value: &Value) -> usize {
    match value.kind() {
        ValueKind::Number | ValueKind::Bool => 64,
        _ => value.as_str().map_or_else(|| value.to_string().len(), str::len),
    }
}

fn replaced(arguments: &[Value]) -> Result<(), String> {
    let text = |place: usize| arguments.get(place).map(ToString::to_string).unwrap_or_default();
    let (input, from, to) = (text(0), text(1), text(2));
    within(input.len().saturating_add(input.matches(&from).count().saturating_mul(to.len())))
}

fn joined(arguments: &[Value]) -> Result<(), String> {
    let items = arguments.first().and_then(Value::len).unwrap_or(0);
    let between = arguments.get(1).and_then(Value::as_str).map_or(0, str::len);
    within(items.saturating_mul(between))
}

fn indented(arguments: &[Value]) -> Result<(), String> {
    let input = arguments.first().map(ToString::to_string).unwrap_or_default();
    let named = |value: &Value| Kwargs::try_from(value.clone()).ok()?.get::<Option<usize>>("width").ok()?;
    let width = arguments.iter().skip(1).find_map(|value| value.as_usize().or_else(|| named(value)));
    within(input.split('\n').count().saturating_mul(width.unwrap_or(4)))
}

fn within(bytes: usize) -> Result<(), String> {
    if bytes > MAX_PROMPT_BYTES { Err(format!("more than {MAX_PROMPT_BYTES} bytes would come out")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(template: &str) -> Result<String, String> {
        let mut environment = Environment::new();
        add(&mut environment);
        environment.render_str(template, ()).map_err(|error| error.to_string())
    }

    #[test]
    fn within_its_bound_a_filter_does_as_ever() {
        for template in [
            "{{ [1, 2, 3]|batch(2, 0)|list }}",
            "{{ [1, 2, 3]|slice(2)|list }}",
            "{{ '%05.1f|%-4s|'|format(1.25, 'x') }}",
            "{{ 'a-b-c'|replace('-', '+') }}{{ 'abc'|replace('', '.') }}",
            "{{ 'a\\nb\\n\\nc'|indent }}{{ 'a\\nb'|indent(2, true) }}{{ 'a\\n\\nb'|indent(width=1, blank=true) }}",
            "{{ [1, none, 'x']|join(', ') }}{{ 'abc'|join('-') }}{{ [{'n': 1}, {'n': 2}]|join('/', attribute='n') }}",
        ] {
            assert_eq!(render(template).unwrap(), Environment::new().render_str(template, ()).unwrap(), "{template}");
        }
    }

    #[test]
    fn what_would_take_all_memory_is_an_error() {
        for template in [
            "{{ [1]|batch(1000000000000, 0)|list }}",
            "{{ [1]|slice(1000000000000)|list }}",
            "{{ '%1000000000000s'|format('x') }}",
            "{{ '%.1000000000000f'|format(1) }}",
            "{{ '%*s'|format(1000000000000, 'x') }}",
            "{{ 'a\\nb'|indent(1000000000000) }}",
            "{{ 'a\\nb'|indent(first=true, width=1000000000000) }}",
            "{% set t = 'x' * 100000 %}{{ t|replace('x', t) }}",
            "{{ range(100000)|join('x' * 100000) }}",
        ] {
            let error = render(template).unwrap_err();
            assert!(error.contains("at most") || error.contains("more than"), "{template}: {error}");
        }
    }
}
