//! The table of the crate's essay, row by row, and that both ways of rendering agree.

use std::borrow::Cow;

use model::Value;
use model::spec::Request;
use proptest::prelude::*;

use super::*;

fn request(template: &str) -> Request {
    Request {
        model: "sim/echo".to_owned(),
        system: Some("Be brief.".to_owned()),
        template: template.to_owned(),
        params: serde_json::Map::new(),
    }
}

fn text(text: &str) -> Value<'_> {
    Value::Text(Cow::Borrowed(text))
}

/// Renders over a row, given by name and value.
fn render(template: &str, row: &[(&str, Value<'static>)]) -> Result<String, RenderError> {
    let columns: Vec<String> = row.iter().map(|(name, _)| (*name).to_owned()).collect();
    let template = Template::compile(&request(template), &columns).unwrap();
    let values: Vec<Value<'_>> = template.columns_used().iter().map(|place| row[*place].1.clone()).collect();
    let whole = template.render(&values).map(|prompt| prompt.user);
    let (mut pieces, mut scratch) = (String::new(), String::new());
    let fed = template.feed(&values, &mut scratch, |part| pieces.push_str(written(&template, part)));
    match &whole {
        Ok(user) => assert_eq!((&pieces, fed.unwrap().blank), (user, user.trim().is_empty())),
        Err(error) => assert_eq!(fed.unwrap_err().to_string(), error.to_string()),
    }
    whole
}

/// The text of a part.
fn written<'p>(template: &'p Template, part: Part<'p>) -> &'p str {
    match part {
        Part::Literal(number) => template.literals().nth(number).unwrap(),
        Part::Text(text) => text,
    }
}

fn refused(template: &str, columns: &[&str]) -> TemplateError {
    let columns: Vec<String> = columns.iter().map(|name| (*name).to_owned()).collect();
    Template::compile(&request(template), &columns).unwrap_err()
}

fn line(error: &TemplateError) -> Option<usize> {
    match error {
        TemplateError::Invalid { line, .. } | TemplateError::UnknownColumn { line, .. } => *line,
    }
}

#[test]
fn every_kind_of_value_renders_as_the_table_says() {
    let list = || Value::List(vec![text("a"), Value::Int(1), Value::Null, Value::Bool(true), Value::Float(0.5)]);
    let address = Value::Struct(vec![
        ("street".to_owned(), text("\"Lane\"\n<1>")),
        ("city".to_owned(), Value::Null),
        ("tags".to_owned(), list()),
    ]);
    let table: Vec<(Value<'static>, &str)> = vec![
        (text("007"), "007"),
        (text(" spaced "), " spaced "),
        (text("1.50"), "1.50"),
        (text("<b>&'\"{{ x }}"), "<b>&'\"{{ x }}"),
        (text(""), ""),
        (text("2026-11-22T10:00:00Z"), "2026-11-22T10:00:00Z"),
        (Value::Null, ""),
        (Value::Bool(true), "true"),
        (Value::Bool(false), "false"),
        (Value::Int(i64::MIN), "-9223372036854775808"),
        (Value::UInt(u64::MAX), "18446744073709551615"),
        (Value::Float(1.0), "1.0"),
        (Value::Float(-0.0), "-0.0"),
        (Value::Float(0.1), "0.1"),
        (Value::Float(1e21), "1000000000000000000000.0"),
        (Value::Float(f64::NAN), "NaN"),
        (Value::Float(f64::NEG_INFINITY), "-inf"),
        (list(), r#"["a",1,null,true,0.5]"#),
        (Value::List(vec![Value::Float(f64::NAN)]), "[null]"),
        (address, "{\"street\":\"\\\"Lane\\\"\\n<1>\",\"city\":null,\"tags\":[\"a\",1,null,true,0.5]}"),
    ];
    for (value, expected) in table {
        for template in
            ["{{ x }}", "{{ row['x'] }}", "{{ row.x }}", "{% if true %}{{ x }}{% endif %}", "{{ x if true }}"]
        {
            assert_eq!(render(template, &[("x", value.clone())]).unwrap(), expected, "{template} {value:?}");
        }
    }
}

#[test]
fn null_is_nothing_wherever_it_stands() {
    let row = [("x", Value::Null), ("y", Value::Null), ("tags", Value::List(vec![text("a"), Value::Null, text("b")]))];
    for (template, expected) in [
        ("{{ x ~ '!' }}", "!"),
        ("{{ x|trim }}|{{ x|upper }}|{{ x|string }}", "||"),
        ("{{ x is none }} {{ x is not none }} {{ none is none }} {{ tags is none }}", "true false true false"),
        ("{{ 'yes' if x else 'no' }}", "no"),
        ("{{ x or 'unknown' }}", "unknown"),
        ("{{ x|default('d', true) }}", "d"),
        ("{% for i in x %}{{ i }}{% else %}none{% endfor %}", "none"),
        ("{{ x|join(',') }}{{ x|length }}", "0"),
        ("{{ x.city }}{{ x['city'].street }}", ""),
        ("{{ x|tojson }}{{ [x, none]|tojson }}", "null[null,null]"),
        ("{{ tags|join('-') }}", "a--b"),
        ("{{ tags|select|join('-') }}", "a-b"),
        ("{{ x == y }} {{ x == '' }}", "true false"),
        ("{{ none }}", ""),
    ] {
        assert_eq!(render(template, &row).unwrap(), expected, "{template}");
    }
}

#[test]
fn lists_and_structs_can_be_worked_with() {
    let address = Value::Struct(vec![
        ("zip".to_owned(), text("01234")),
        ("city".to_owned(), text("Ulm")),
        ("items".to_owned(), Value::Int(3)),
    ]);
    let row = [("address", address), ("tags", Value::List(vec![text("b"), text("a"), text("it's <c>")]))];
    for (template, expected) in [
        ("{{ tags|join(', ') }}", "b, a, it's <c>"),
        ("{{ tags[0] }}{{ tags[-1] }}{{ tags|length }}", "bit's <c>3"),
        ("{{ tags[:2] }}", r#"["b","a"]"#),
        ("{{ tags|sort|first }}", "a"),
        ("{{ tags|tojson }}", r#"["b","a","it's <c>"]"#),
        ("{{ tags|tojson(indent=1) }}", "[\n \"b\",\n \"a\",\n \"it's <c>\"\n]"),
        ("{{ 'a' in tags }}", "true"),
        ("{{ address.city }} {{ address['zip'] }} {{ address.items }}", "Ulm 01234 3"),
        ("{% for k, v in address|items %}{{ k }}={{ v }};{% endfor %}", "zip=01234;city=Ulm;items=3;"),
        ("{{ 'at ' ~ address }}", r#"at {"zip":"01234","city":"Ulm","items":3}"#),
        ("{% for t in tags %}{{ loop.index }}{{ t }}{% endfor %}", "1b2a3it's <c>"),
        ("{% macro m(t) %}<{{ t }}>{% endmacro %}{% for t in tags %}{{ m(t) }}{% endfor %}", "<b><a><it's <c>>"),
        ("{% set n = namespace(c=0) %}{% for t in tags %}{% set n.c = n.c + 1 %}{% endfor %}{{ n.c }}", "3"),
        ("{% with c = address.city %}{{ c|upper }}{% endwith %}", "ULM"),
        ("{{ range(3) }}", "[0,1,2]"),
    ] {
        assert_eq!(render(template, &row).unwrap(), expected, "{template}");
    }
}

#[test]
fn a_template_keeps_its_last_newline_and_its_own_text() {
    assert_eq!(render("a {{ x }}\n", &[("x", text("b"))]).unwrap(), "a b\n");
    assert_eq!(render("{# note #}a\r\n\n{{- x -}}\n b", &[("x", text("|"))]).unwrap(), "a|b");
    assert_eq!(render("{% raw %}{{ x }}{% endraw %}", &[]).unwrap(), "{{ x }}");
    assert_eq!(render("no columns", &[("x", text("b"))]).unwrap(), "no columns");
}

#[test]
fn the_columns_needed_are_those_that_are_named() {
    let columns: Vec<String> = ["id", "title", "My Column", "größe", "loop"].map(str::to_owned).into();
    let used = |template: &str| Template::compile(&request(template), &columns).unwrap().columns_used().to_vec();
    assert_eq!(used("{{ title }} {{ id }} {{ title }}"), [0, 1]);
    assert_eq!(used("{{ row['My Column'] }}"), [2]);
    assert_eq!(used("{{ größe }}"), [3]);
    assert_eq!(used("{% if id %}{{ row.title }}{% endif %}"), [0, 1]);
    assert_eq!(used("{{ row['ti' ~ 'tle'] }}"), [1]);
    for all in [
        "{{ row[id] }}",
        "{% for k, v in row|items %}{{ k }}{% endfor %}",
        "{{ row|tojson }}",
        "{{ row }}",
        "{% set r = row %}{{ r.id }}",
    ] {
        assert_eq!(used(all), [0, 1, 2, 3, 4], "{all}");
    }
    assert!(used("{% for x in [1] %}{{ x }}{% endfor %}").is_empty());
    assert_eq!(used("{% if false %}{% set id = 1 %}{% endif %}{{ id }}"), [0]);
}

#[test]
fn the_row_is_iterated_in_the_tables_order() {
    let row = [("z", text("1")), ("a b", text("2")), ("m", Value::Null)];
    assert_eq!(render("{% for k, v in row|items %}{{ k }}={{ v }};{% endfor %}", &row).unwrap(), "z=1;a b=2;m=;");
    assert_eq!(render("{{ row }}", &row).unwrap(), r#"{"z":"1","a b":"2","m":null}"#);
}

#[test]
fn an_unknown_column_is_refused_wherever_it_stands() {
    for template in [
        "{{ titel }}",
        "{{ row['titel'] }}",
        "{{ row.titel }}",
        "{% if false %}{{ titel }}{% endif %}",
        "{% if false %}{{ row['titel'] }}{% endif %}",
        "{{ titel is defined }}",
        "{{ titel|default('x') }}",
        "{{ title[titel:] }}",
        "{{ title[1:titel] }}",
        "{% for x in title %}{% endfor %}{{ titel }}",
        "{% for titel in title %}{% endfor %}{{ titel }}",
        "{% macro m(a=titel) %}{% endmacro %}",
        "{{ title|replace('a', titel) }}",
        "{{ {'k': titel} }}",
        "{{ [1, (titel, 2)] }}",
        "{% set x %}{{ titel }}{% endset %}",
        "{{ title if titel else title }}",
    ] {
        let error = refused(template, &["id", "title"]);
        assert!(matches!(&error, TemplateError::UnknownColumn { name, .. } if name == "titel"), "{template}: {error}");
        assert_eq!(error.refusal().code, model::RefusalCode::UnknownColumn);
        assert!(error.to_string().contains("Did you mean 'title'?"), "{error}");
    }
    assert!(matches!(refused("{{ row[0] }}", &["a"]), TemplateError::UnknownColumn { name, .. } if name == "0"));
    assert_eq!(line(&refused("a\nb {{ x }}\n", &["y"])), Some(2));
}

#[test]
fn a_wrong_template_is_refused_with_its_line() {
    for template in [
        "a\n{{ title",
        "a\n{% if %}",
        "a\n{% for x in %}{% endfor %}",
        "a\n{{ title|nosuch }}",
        "a\n{{ title is nosuch }}",
        "a\n{{ nosuch() }}",
        "a\n{{ title() }}",
        "a\n{{ row.items() }}",
        "a\n{{ debug() }}",
        "a\n{{ title == none }}",
        "a\n{{ none != title }}",
        "a\n{{ title is eq(none) }}",
        "a\n{% set row = 1 %}",
        "a\n{% for row in title %}{% endfor %}",
        "a\n{% include 'x' %}",
        "a\n{% extends 'x' %}",
        "a\n{% import 'x' as y %}",
        "a\n{% autoescape true %}{% endautoescape %}",
    ] {
        let error = refused(template, &["title"]);
        assert!(matches!(error, TemplateError::Invalid { .. }), "{template}: {error}");
        assert_eq!(line(&error), Some(2), "{template}: {error}");
        assert_eq!(error.refusal().code, model::RefusalCode::TemplateInvalid);
    }
}

#[test]
fn a_column_called_row_is_reached_by_its_subscript_only() {
    let row = [("row", text("r")), ("x", text("y"))];
    assert_eq!(render("{{ row['row'] }}{{ row.x }}", &row).unwrap(), "ry");
    assert!(refused("{{ row }}", &["row", "x"]).to_string().contains("row['row']"));
}

#[test]
fn columns_win_over_functions_of_the_same_name() {
    assert_eq!(render("{{ range }}{{ range|upper }}", &[("range", text("wide"))]).unwrap(), "wideWIDE");
}

#[test]
fn what_a_row_lacks_fails_that_row_alone() {
    let address = Value::Struct(vec![("city".to_owned(), text("Ulm"))]);
    let row = [("address", address), ("n", Value::Int(1)), ("secret", text("hunter2"))];
    for template in [
        "{{ address.zip }}",
        "{{ n + secret }}",
        "{{ row[secret] }}",
        "{{ n.x }}",
        "{% for i in n %}{% endfor %}",
        "{{ address.zip|upper }}",
    ] {
        let error = render(template, &row).unwrap_err();
        assert!(matches!(&error, RenderError::Failed { line: Some(1), .. }), "{template}: {error}");
        assert_eq!(error.kind(), model::FailureKind::TemplateFailed);
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

#[test]
fn a_template_without_end_is_stopped() {
    let endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% if a %}{% endif %}{% endfor %}{% endfor %}";
    assert_eq!(render(endless, &[]), Err(RenderError::TooMuchWork { limit: MAX_STEPS }));
    let recursive = "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}";
    assert!(render(recursive, &[]).is_err());
}

#[test]
fn a_prompt_without_end_is_stopped() {
    let error = render("{% for a in range(1000) %}{{ 'x' * 100000 }}{% endfor %}", &[]).unwrap_err();
    assert_eq!(error, RenderError::TooLarge { limit: MAX_PROMPT_BYTES });
    assert_eq!(error.kind(), model::FailureKind::TooLarge);
    let long = Value::Text(Cow::Owned("x".repeat(MAX_PROMPT_BYTES)));
    assert_eq!(render("{{ x }}", &[("x", long.clone())]).unwrap().len(), MAX_PROMPT_BYTES);
    assert_eq!(render("{{ x }}.", &[("x", long)]), Err(error));
}

#[test]
fn the_system_prompt_is_passed_on_untouched() {
    let template = Template::compile(&request("{{ x }}"), &["x".to_owned()]).unwrap();
    assert_eq!(template.render(&[text("y")]).unwrap(), Prompt { system: Some("Be brief."), user: "y".to_owned() });
    assert_eq!(template.render(&[]), Err(RenderError::WrongValues { given: 0, needed: 1 }));
}

#[test]
fn a_debug_print_shows_no_prompt() {
    let template = Template::compile(&request("secret {{ x }}"), &["x".to_owned()]).unwrap();
    assert!(!format!("{template:?}").contains("secret"));
}

fn value(depth: u32) -> impl Strategy<Value = Value<'static>> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<u64>().prop_map(Value::UInt),
        any::<f64>().prop_map(Value::Float),
        prop_oneof![any::<String>(), "[ -~]{0,40}"].prop_map(|text| Value::Text(Cow::Owned(text))),
    ];
    leaf.prop_recursive(depth, 24, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::List),
            proptest::collection::btree_map("[a-zA-Z ]{0,6}", inner, 0..5)
                .prop_map(|fields| Value::Struct(fields.into_iter().rev().collect())),
        ]
    })
}

/// What a value is as JSON, with our rule for what JSON can't say.
fn expected_json(value: &Value<'_>) -> serde_json::Value {
    match value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(flag) => (*flag).into(),
        Value::Int(number) => (*number).into(),
        Value::UInt(number) => (*number).into(),
        Value::Float(number) => serde_json::Number::from_f64(*number).map_or(serde_json::Value::Null, Into::into),
        Value::Text(text) => text.as_ref().into(),
        Value::List(items) => items.iter().map(expected_json).collect(),
        Value::Struct(fields) => fields.iter().map(|(name, value)| (name.clone(), expected_json(value))).collect(),
    }
}

/// minijinja 3.0.5 computes what is constant when it compiles, and panics on some empty slices in a debug build.
#[test]
fn a_template_on_which_the_engine_panics_is_refused_or_fails_its_rows() {
    for template in ["{{ not [][::-1] }}{{ a ~ a }}", "{{ (()|batch(2))[::-1] }}{{ a ~ a }}", "{{ ''[::-1] ~ a }}"] {
        match Template::compile(&request(template), &["a".to_owned()]) {
            Ok(compiled) => drop(compiled.render(&[Value::Text("x".into())])),
            Err(error) => assert!(matches!(&error, TemplateError::Invalid { .. }), "{template}: {error}"),
        }
    }
}

proptest! {
    #[test]
    fn both_ways_of_rendering_agree(values in proptest::collection::vec(value(3), 3), pieces in proptest::collection::vec((0usize..6, "[ -z\n\u{e4}]{0,12}"), 0..8)) {
        let forms = ["{{ a }}", "{{b}}", "{{ row['c d'] }}", "{{ row.a }}", "{{- b -}}", "{{ row[\"b\"] }}"];
        let template: String = pieces.iter().map(|(form, literal)| format!("{literal}{}", forms[*form])).collect();
        let columns: Vec<String> = ["a", "b", "c d"].map(str::to_owned).into();
        let fast = Template::compile(&request(&template), &columns).unwrap();
        let full = Template::compile_with(&request(&template), &columns, true).unwrap();
        prop_assert!(matches!(fast.way, Way::Joined(_)));
        prop_assert!(matches!(full.way, Way::Full(_)));
        prop_assert_eq!(fast.columns_used(), full.columns_used());
        let values: Vec<Value<'_>> = fast.columns_used().iter().map(|place| values[*place].clone()).collect();
        let user = fast.render(&values).unwrap().user;
        prop_assert_eq!(&user, &full.render(&values).unwrap().user);
        for template in [fast, full] {
            let (mut fed, mut scratch) = (String::new(), String::new());
            let blank = template.feed(&values, &mut scratch, |part| fed.push_str(written(&template, part))).unwrap().blank;
            prop_assert_eq!((&fed, blank), (&user, user.trim().is_empty()));
        }
    }

    #[test]
    fn nested_values_render_as_json_that_reads_back(value in value(4)) {
        let json = render("{{ x|tojson }}", &[("x", value.clone())]).unwrap();
        let read: serde_json::Value = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(&read, &expected_json(&value));
        if matches!(value, Value::List(_) | Value::Struct(_)) {
            prop_assert_eq!(render("{{ x }}", &[("x", value.clone())]).unwrap(), json.clone());
            prop_assert_eq!(render("{{ '' ~ x }}", &[("x", value)]).unwrap(), json);
        }
    }

    #[test]
    fn a_float_reads_back_as_itself(number: f64) {
        let text = render("{{ x }}", &[("x", Value::Float(number))]).unwrap();
        prop_assert!(text.parse::<f64>().unwrap().to_bits() == number.to_bits() || number.is_nan());
        prop_assert!(!text.contains('e'));
        prop_assert!(number.is_nan() || number.is_infinite() || text.contains('.'));
    }

    #[test]
    fn no_template_makes_the_compiler_panic(template in "[a-z{}%|.'\\[\\] \n#-]{0,60}") {
        let _ = Template::compile(&request(&template), &["a".to_owned(), "b".to_owned()]);
    }
}
