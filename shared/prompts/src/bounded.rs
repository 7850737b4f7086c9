//! Filters whose arguments say how much comes out: minijinja's own, behind a bound. A number from outside must not ask for all
//! memory.

use std::sync::Arc;

use minijinja::value::{Kwargs, Rest, Value, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior};

use crate::MAX_PROMPT_BYTES;

/// The largest count that `batch` and `slice` take, and the widest field of `format`.
const MAX_COUNT: usize = 10_000;

/// Puts the bounded filters into an environment.
pub(crate) fn add(environment: &mut Environment<'static>) {
    let mut plain = Environment::new();
    plain.set_undefined_behavior(UndefinedBehavior::Strict);
    let plain = Arc::new(plain);
    let bounds: [(&'static str, Bound); 6] = [
        ("batch", counts),
        ("slice", counts),
        ("format", widths),
        ("replace", replaced),
        ("join", joined),
        ("indent", indented),
    ];
    for (name, bound) in bounds {
        let plain = Arc::clone(&plain);
        environment.add_filter(name, move |arguments: Rest<ValueOrKwargs>| {
            let arguments = arguments.into_values();
            bound(&arguments).map_err(|what| Error::new(ErrorKind::InvalidOperation, format!("{name}: {what}")))?;
            plain.empty_state().apply_filter(name, &arguments)
        });
    }
}

type Bound = fn(&[Value]) -> Result<(), String>;

fn counts(arguments: &[Value]) -> Result<(), String> {
    let asked = arguments.get(1).and_then(Value::as_usize).unwrap_or(0);
    if asked > MAX_COUNT { Err(format!("at most {MAX_COUNT} can be asked for")) } else { Ok(()) }
}

/// A width is a number in the format, or `*`, which stands for an argument.
fn widths(arguments: &[Value]) -> Result<(), String> {
    let format = arguments.first().and_then(Value::as_str).unwrap_or_default();
    let longest = format.split(|c: char| !c.is_ascii_digit()).map(str::len).max().unwrap_or(0);
    if longest > 4 || format.contains('*') {
        return Err("a width has at most four digits, and can't be an argument".to_owned());
    }
    Ok(())
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
