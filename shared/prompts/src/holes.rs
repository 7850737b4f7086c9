//! Templates that ask for all memory, in one huge step or in many small ones. Each must fail its row, and quickly.

use std::borrow::Cow;

use model::Value;
use model::spec::Request;

use super::*;

fn render(template: &str) -> Result<String, RenderError> {
    let request = Request {
        model: "sim/echo".to_owned(),
        system: None,
        template: template.to_owned(),
        params: serde_json::Map::new(),
    };
    let columns = ["title".to_owned(), "long".to_owned(), "tags".to_owned()];
    let template = Template::compile(&request, &columns).unwrap_or_else(|error| panic!("{error}: {template}"));
    let values = [
        Value::Text(Cow::Borrowed("x")),
        Value::Text(Cow::Owned("y".repeat(1_000_000))),
        Value::List(vec![Value::Text(Cow::Borrowed("a")), Value::Text(Cow::Owned("b".repeat(1_000_000)))]),
    ];
    let values: Vec<Value<'_>> = template.columns_used().iter().map(|place| values[*place].clone()).collect();
    template.render(&values).map(|prompt| prompt.user)
}

fn is_stopped(template: &str) {
    match render(template) {
        Err(RenderError::TooMuchBuilt { limit: MAX_BUILT_BYTES } | RenderError::TooLarge { .. }) => {}
        Err(RenderError::Failed { message, .. })
            if ["at most", "more than", "a namespace"].iter().any(|bound| message.contains(bound)) => {}
        other => panic!("{:.200?}: {template:.200}", other.map(|text| text.len())),
    }
}

/// A step, forty times over.
fn forty(start: &str, step: &str) -> String {
    format!("{start}{}{{{{ t }}}}", step.repeat(40))
}

#[test]
fn doubling_is_stopped() {
    for (start, step) in [
        ("{% set t = title %}", "{% set t = t ~ t %}"),
        ("{% set t = title %}", "{% set t = t + t %}"),
        ("{% set t = title %}", "{% set t = t * 2 %}"),
        ("{% set t = title %}", "{% set t = (t ~ '') ~ (t + '') %}"),
        ("{% set t = title %}", "{% set t %}{{ t }}{{ t }}{% endset %}"),
        ("{% set t = title %}", "{% set t %}{% filter trim %}{{ t }}{{ t }}{% endfilter %}{% endset %}"),
        ("{% set t = title %}", "{% set t = [t, t]|join %}"),
        ("{% set t = title %}", "{% set t = t|replace('x', 'xx') %}"),
        ("{% set t = title %}", "{% set t = '%s%s'|format(t, t) %}"),
        ("{% set t = [1] %}", "{% set t = [t, t] %}"),
        ("{% set t = [1] %}", "{% set t = (t, t,) %}"),
        ("{% set t = [1] %}", "{% set t = {'a': t, 'b': t} %}"),
        ("{% set t = [1] %}", "{% set t = dict(a=t, b=t) %}"),
        ("{% set t = [1] %}", "{% set t = t + t %}"),
        ("{% set t = [1] %}", "{% set t = t * 2 %}"),
        ("{% set t = [1] %}", "{% set t = t|chain(t) %}"),
        ("{% set t = [1] %}", "{% set t = t|zip(t)|list %}"),
        ("{% set t = [title] %}", "{% set t = (t + t)[0:] %}"),
    ] {
        is_stopped(&forty(start, step));
    }
    let in_namespace = |step: &str| {
        format!("{{% set ns = namespace(t=title) %}}{{% for i in range(40) %}}{{% set ns.t = {step} %}}{{% endfor %}}")
    };
    for step in ["ns.t ~ ns.t", "ns.t + ns.t", "ns.t * 2", "[ns.t, ns.t]", "[ns.t, ns.t]|string"] {
        is_stopped(&in_namespace(step));
    }
}

#[test]
fn doubling_by_macros_is_stopped() {
    let mut chain = "{% macro m0() %}xx{% endmacro %}".to_owned();
    let mut calls = "{% macro m0() %}x{{ caller() }}{{ caller() }}{% endmacro %}{% set t = '' %}".to_owned();
    for i in 1..40 {
        chain.push_str(&format!("{{% macro m{i}() %}}{{{{ m{0}() }}}}{{{{ m{0}() }}}}{{% endmacro %}}", i - 1));
        calls.push_str("{% set t %}{% call m0() %}x{{ t }}{% endcall %}{% endset %}");
    }
    // Steps and prompts bound these too; what matters is that one of the bounds is met.
    assert!(render(&format!("{chain}{{{{ m39() }}}}")).is_err());
    assert!(render(&format!("{chain}{{% set t = m39() %}}")).is_err());
    is_stopped(&calls);
    is_stopped(
        "{% macro m() %}{{ long }}{{ long }}{% endmacro %}{% set t = [m(), m(), m(), m(), m(), m(), m(), m(), m(), m(), m(), m(), m(), m(), m(), m(), m(), m()] %}",
    );
}

#[test]
fn collecting_is_stopped() {
    let looped =
        |step: &str| format!("{{% set ns = namespace(l=[], t='') %}}{{% for i in range(99999) %}}{step}{{% endfor %}}");
    let raw = "literal text ".repeat(1_000);
    for step in [
        "{% set ns.l = ns.l + [ns.l ~ 'x'] %}",
        "{% set ns.l = ns.l + [long ~ i] %}",
        "{% set ns.l = ns.l + [long[1:]] %}",
        "{% set ns.l = ns.l + [long[::-1]] %}",
        "{% set ns.l = ns.l + [long|upper] %}",
        "{% set ns.l = ns.l + [[long]|map('upper')|first] %}",
        "{% set ns.l = ns.l + [long * 2] %}",
        "{% set ns.l = [ns.l] %}",
        "{% set ns.l = ns.l + [i] %}",
        "{% set ns.l = ns.l + tags %}",
        "{% set ns.t = ns.t ~ 'some words' %}",
        "{% set ns.t %}{{ ns.t }}some words{% endset %}",
        "{% set ns.ns = ns %}",
        "{% set ns.l = [ns] %}",
        "{% set ns.l = namespace(a=ns) %}",
        "{% set t %}{{ long }}{% endset %}",
        "{% filter length %}{{ long }}{% endfilter %}",
    ] {
        is_stopped(&looped(step));
    }
    is_stopped(&looped(&format!("{{% set t %}}{raw}{{% endset %}}{{% set ns.l = ns.l + [t] %}}")));
    is_stopped(&looped(&format!("{{% set t %}}{{% raw %}}{raw}{{{{{{% endraw %}}{{% endset %}}")));
    is_stopped(&format!("{{% set t %}}{{% for i in range(99999) %}}{raw}{{% endfor %}}{{% endset %}}"));
    is_stopped(&format!(
        "{{% macro m() %}}{{% for i in range(99999) %}}{raw}{{% endfor %}}{{% endmacro %}}{{% set t = m() %}}"
    ));
    is_stopped(&format!(
        "{{% set t %}}{{% for i in [[[[]]]] * 99999 recursive %}}{raw}{{{{ loop(i) }}}}{{% endfor %}}{{% endset %}}"
    ));
    is_stopped(&format!(
        "{{% for i in [range(9999)] recursive %}}{raw}{{% if loop.depth == 1 %}}{{% set t = loop(i) %}}{{% endif %}}{{% endfor %}}"
    ));
}

#[test]
fn one_huge_step_is_stopped() {
    let many = |part: &str, sign: &str| vec![part; 90].join(sign);
    for template in [
        "{% set t = title * 99999999 %}".to_owned(),
        "{% set t = 99999999 * title %}".to_owned(),
        "{% set t = title * 9999 * 9999 %}".to_owned(),
        "{% set t = [title] * 99999999 %}".to_owned(),
        "{{ ([title] * 99999999)|join }}".to_owned(),
        "{{ ([title] * 99999999)|tojson }}".to_owned(),
        "{{ ([title] * 99999999)[::-1] }}".to_owned(),
        format!("{{% set t = {} %}}", many("long", " ~ ")),
        format!("{{% set t = {} %}}", many("long", " + ")),
        format!("{{% set t = {} %}}", many("tags", " ~ ")),
        format!("{{{{ {} }}}}", many("tags", " + ")),
        format!("{{{{ ({})|string }}}}", many("tags", " + ")),
        format!("{{{{ {} }}}}", many("'x' * 9999999", " ~ ")),
        format!("{{% set t = [{}] %}}", many("long|upper", ", ")),
        format!("{{{{ dict(a=[{}]) }}}}", many("long", ", ")),
        "{{ (['%s'] * 9999)|map('format', long)|list }}".to_owned(),
        "{{ ([long] * 99)|map('upper')|list }}".to_owned(),
        "{{ range(99999)|map('string')|map('replace', '1', long)|list }}".to_owned(),
        "{{ ('%(a)9999s' * 99999)|format(a=1) }}".to_owned(),
        "{{ (long ~ long)|list|length }}".to_owned(),
        "{{ (long ~ long)|split('')|length }}".to_owned(),
        "{{ ('\\n' * 9999999)|lines|length }}".to_owned(),
        "{{ range(*(range(99999)|list * 99)) }}".to_owned(),
        "{% set ns = namespace() %}{% set ns.a = ns %}{{ '' ~ ns }}".to_owned(),
        "{{ (tags * 99)|tojson }}".to_owned(),
        "{{ tags * 99 }}".to_owned(),
    ] {
        is_stopped(&template);
    }
}

#[test]
fn a_constant_is_not_calculated_before_it_is_asked_for() {
    let huge = vec!["'x' * 99999999"; 90].join(" ~ ");
    is_stopped(&format!("{{% if title %}}{{% set t = {huge} %}}{{% endif %}}"));
    is_stopped(&format!("{{{{ row[{huge}] }}}}"));
    assert_eq!(render(&format!("{{% if not title %}}{{{{ {huge} }}}}{{% endif %}}")), Ok(String::new()));
}

#[test]
fn what_minijinja_panics_over_fails_the_row() {
    for template in ["{{ ''[::-1] }}", "{% for i in [1] %}{{ loop.cycle() }}{% endfor %}"] {
        assert!(matches!(render(template), Err(RenderError::Failed { .. })), "{template}");
    }
}

#[test]
fn deep_lists_need_no_stack() {
    for step in ["[ns.l]", "{'a': ns.l}", "(ns.l,)", "[ns.l][0:]", "[ns.l]|reverse", "[ns.l] + []"] {
        is_stopped(&format!(
            "{{% set ns = namespace(l=[]) %}}{{% for i in range(99999) %}}{{% set ns.l = {step} %}}{{% endfor %}}"
        ));
    }
    let views =
        "{% set ns = namespace(l=[]) %}{% for i in range(99999) %}{% set ns.l = ns.l[0:] %}{% endfor %}{{ ns.l }}";
    assert_eq!(render(views), Ok("[]".to_owned()));
    for step in ["ns.l[0:]", "ns.l|reverse", "ns.l + []", "ns.l|list", "ns.l * 1"] {
        let views = format!(
            "{{% set ns = namespace(l=[]) %}}{{% for i in range(9999) %}}{{% set ns.l = {step} %}}{{% endfor %}}{{{{ ns.l }}}}"
        );
        assert_eq!(render(&views), Ok("[]".to_owned()), "{step}");
    }
}

#[test]
fn what_ordinary_templates_build_is_within_the_bound() {
    for (template, length) in [
        (
            "{% set ns = namespace(l=[]) %}{% for i in range(1000) %}{% set ns.l = ns.l + ['item ' ~ i] %}{% endfor %}{{ ns.l|join(' ') }}",
            8_889,
        ),
        (
            "{% set ns = namespace(t='') %}{% for i in range(1000) %}{% set ns.t = ns.t ~ 'some words' %}{% endfor %}{{ ns.t }}",
            10_000,
        ),
        ("{% for i in range(1000) %}{{ long[i * 1000:(i + 1) * 1000]|upper }}{% endfor %}", 1_000_000),
        ("{% macro m(a) %}<{{ a }}>{% endmacro %}{% for i in range(10000) %}{{ m(title) }}{% endfor %}", 30_000),
        ("{{ long|upper|trim|title }}{{ long ~ long }}{{ tags|join }}", 4_000_001),
    ] {
        assert_eq!(render(template).map(|text| text.len()), Ok(length), "{template}");
    }
}

#[test]
fn the_filters_of_the_account_can_not_be_written() {
    for filter in
        ["batchmill_built", "batchmill_held", "batchmill_joined(1)", "batchmill_times(2)", "batchmill_plus(2)"]
    {
        let request = Request {
            model: "sim/echo".to_owned(),
            system: None,
            template: format!("{{{{ title|{filter} }}}}"),
            params: serde_json::Map::new(),
        };
        assert!(Template::compile(&request, &["title".to_owned()]).is_err(), "{filter}");
    }
}
