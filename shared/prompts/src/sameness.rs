//! That `rewrite` changes nothing that renders: templates from a small grammar, rendered as minijinja has them and with the
//! filters of the account.

use std::borrow::Cow;

use model::Value;
use proptest::prelude::*;

use super::*;

fn values() -> Vec<Value<'static>> {
    let text = |text: &'static str| Value::Text(Cow::Borrowed(text));
    let address = Value::Struct(vec![("city".to_owned(), text("Ulm")), ("zip".to_owned(), Value::Null)]);
    vec![text("ab"), Value::Int(3), Value::Float(1.5), Value::List(vec![text("p"), Value::Int(2), text("q")]), address]
}

const COLUMNS: [&str; 5] = ["t", "n", "f", "l", "s"];

/// What a template renders to in an environment like ours, and in which line it fails.
fn rendered(template: &str) -> Result<String, (String, Option<usize>)> {
    let names = Arc::new(values::Names::new(COLUMNS.iter().map(|name| (*name).to_owned())));
    let mut environment = environment().unwrap();
    let failed = |error: minijinja::Error| (error.to_string(), error.line());
    budget::start();
    // Both may panic: what is constant is computed when the template is compiled.
    let render = || {
        environment.add_template_owned(NAME, template.to_owned()).map_err(failed)?;
        let template = environment.get_template(NAME).unwrap();
        template.render(values::context(names, &values())).map_err(failed)
    };
    catch_unwind(AssertUnwindSafe(render)).unwrap_or_else(|_| Err(("a panic".to_owned(), None)))
}

fn syntax() -> SyntaxConfig {
    SyntaxConfig::builder().keep_trailing_newline(true).build().unwrap()
}

/// Compares a template with what becomes of it.
fn assert_same(template: &str) {
    let Ok(rewritten) = rewrite::rewrite(template, &syntax()) else {
        // Only what minijinja refuses as well, or what nests deeper than the tests' templates do.
        assert!(rendered(template).is_err(), "refused: {template}");
        return;
    };
    let (before, after) = (rendered(template), rendered(&rewritten));
    match (&before, &after) {
        (Ok(before), Ok(after)) => assert_eq!(before, after, "{template}\n{rewritten}"),
        (Err(_), Err(_)) => {}
        _ => panic!("{before:?} {after:?}\n{template}\n{rewritten}"),
    }
}

fn expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("t"),
        Just("n"),
        Just("f"),
        Just("l"),
        Just("s.city"),
        Just("row['t']"),
        Just("'x\\n{'"),
        Just("\"it's\""),
        Just("2"),
        Just("0.5"),
        Just("1e20"),
        Just("true"),
        Just("none"),
        Just("v"),
        Just("[]"),
        Just("[1, 2]"),
        Just("()"),
    ]
    .prop_map(str::to_owned);
    leaf.prop_recursive(4, 24, 3, |inner| {
        let operator = prop_oneof![
            4 => Just("~"), 4 => Just("+"), 4 => Just("*"), 1 => Just("-"), 1 => Just("/"), 1 => Just("//"), 1 => Just("%"),
            1 => Just("and"), 1 => Just("or"), 1 => Just("=="), 1 => Just("<"), 1 => Just("in"), 1 => Just("not in"), 1 => Just("**"),
        ];
        let filter = prop_oneof![
            Just("upper"), Just("string"), Just("list"), Just("length"), Just("default('d')"), Just("join('-')"), Just("reverse"),
            Just("replace('a', t)"), Just("map('upper')|list"), Just("first"), Just("tojson"), Just("batch(2)"),
        ];
        let test = prop_oneof![Just("string"), Just("not none"), Just("defined"), Just("divisibleby 2"), Just("sequence"), Just("in [2, 'p']"), Just("iterable")];
        let slice = prop_oneof![Just("[1:]"), Just("[:2]"), Just("[::-1]"), Just("[0]"), Just("[:n:2]"), Just("[-1]"), Just("[0:2][1:]")];
        prop_oneof![
            6 => (inner.clone(), operator, inner.clone()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
            3 => inner.clone().prop_map(|a| format!("({a})")),
            3 => (inner.clone(), filter.clone()).prop_map(|(a, filter)| format!("{a}|{filter}")),
            2 => (inner.clone(), filter).prop_map(|(a, filter)| format!("({a})|{filter}")),
            2 => (inner.clone(), slice.clone()).prop_map(|(a, slice)| format!("({a}){slice}")),
            1 => (inner.clone(), slice).prop_map(|(a, slice)| format!("{a}{slice}")),
            1 => (inner.clone(), test).prop_map(|(a, test)| format!("{a} is {test}")),
            1 => (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("{a} if {b} else {c}")),
            1 => inner.clone().prop_map(|a| format!("-{a}")),
            1 => inner.clone().prop_map(|a| format!("not {a}")),
            1 => (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("{a} < {b} <= {c}")),
            1 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("[{a}, {b}]")),
            1 => inner.clone().prop_map(|a| format!("({a},)")),
            1 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{{'k': {a}, t: {b}}}")),
            1 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("m({a}, b={b})")),
            1 => inner.clone().prop_map(|a| format!("m(*{a})")),
            1 => inner.prop_map(|a| format!("dict(a={a}).a")),
        ]
    })
}

fn tag(open: &'static str, close: &'static str, inside: &str, trim: (bool, bool)) -> String {
    let dash = |trim: bool| if trim { "-" } else { "" };
    format!("{open}{} {inside} {}{close}", dash(trim.0), dash(trim.1))
}

fn body() -> impl Strategy<Value = String> {
    let trim = || (any::<bool>(), any::<bool>());
    let leaf = prop_oneof![
        "[ a{}%#\n'\\\\-]{0,6}"
            .prop_filter("a tag by chance", |text| !["{{", "{%", "{#"].iter().any(|start| text.contains(start))
                && !text.ends_with('{')),
        Just("{ {#- note -#} {".to_owned()).prop_map(|text| text + " "),
        Just("{% raw -%} {{ x }} {%- endraw %}".to_owned()),
        (expression(), trim()).prop_map(|(inside, trim)| tag("{{", "}}", &inside, trim)),
        (expression(), trim()).prop_map(|(inside, trim)| tag("{%", "%}", &format!("set v = {inside}"), trim)),
        (expression(), trim()).prop_map(|(inside, trim)| tag("{%", "%}", &format!("set ns.v = {inside}"), trim)),
        (expression(), expression()).prop_map(|(a, b)| format!("{{% set w, v = {a}, {b} %}}{{{{ w }}}}")),
    ];
    leaf.prop_recursive(3, 16, 4, move |inner| {
        let inner = proptest::collection::vec(inner, 0..4).prop_map(|parts| parts.concat());
        let block = |open: String, body: String, end: &'static str, trim: ((bool, bool), (bool, bool))| {
            format!("{}{body}{}", tag("{%", "%}", &open, trim.0), tag("{%", "%}", end, trim.1))
        };
        let trims = || (trim(), trim());
        prop_oneof![
            (expression(), inner.clone(), trims()).prop_map(move |(a, body, trim)| block(
                format!("for v in {a}"),
                body + "{{ loop.index }}",
                "endfor",
                trim
            )),
            (expression(), inner.clone(), trims()).prop_map(move |(a, body, trim)| block(
                format!("for v in [1, {a}] if v recursive"),
                body + "{% else %}none",
                "endfor",
                trim
            )),
            (expression(), inner.clone(), trims()).prop_map(move |(a, body, trim)| block(
                format!("if {a}"),
                body + "{% elif n %}x{% else %}y",
                "endif",
                trim
            )),
            (inner.clone(), trims()).prop_map(move |(body, trim)| block("set v".to_owned(), body, "endset", trim)),
            (inner.clone(), trims()).prop_map(move |(body, trim)| block(
                "set v|upper|trim".to_owned(),
                body,
                "endset",
                trim
            ) + "{{ v }}"),
            (inner.clone(), trims()).prop_map(move |(body, trim)| block(
                "filter replace('a', t ~ n)|upper".to_owned(),
                body,
                "endfilter",
                trim
            )),
            (expression(), inner.clone(), trims()).prop_map(move |(a, body, trim)| block(
                format!("call(v) c({a})"),
                body,
                "endcall",
                trim
            )),
            (expression(), inner, trims()).prop_map(move |(a, body, trim)| block(
                format!("with v = {a}, w = 1"),
                body,
                "endwith",
                trim
            )),
        ]
    })
}

const BEFORE: &str = "{% macro m(a, b='d' ~ 'e') %}<{{ a }}{ {{ b }}>{% endmacro %}{% macro c(x) %}[{{ caller(x) }}{{ x }}]{% endmacro %}\
                      {% set ns = namespace(v=1) %}{% set v = 'v' %}";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn a_rewritten_expression_renders_the_same(expression in expression()) {
        assert_same(&format!("{BEFORE}{{{{ {expression} }}}}"));
    }

    #[test]
    fn a_rewritten_template_renders_the_same(parts in proptest::collection::vec(body(), 1..5)) {
        assert_same(&format!("{BEFORE}{}", parts.concat()));
    }
}

#[test]
fn what_is_hard_to_write_again_renders_the_same() {
    for template in [
        "{{ - n ~ -t }}",
        "{{ 2 ** 3 ** 2 }}{{ (2 ** 3) ** 2 * n }}{{ -2 ** 2 * n }}",
        "{{ (n + n) * (n - 1) ~ (n ~ n) * 2 }}",
        "{{ n - (n - 1) - n + t|length }}",
        "{{ 'a' if n is defined else 'b' ~ t }}{{ ('a' if n) ~ t }}{{ 'x' ~ (t if n > 5 else l[0] if n else t) }}",
        "{{ (t ~ t).x is defined }}",
        "{{ t[0] ~ l[0][0] ~ (t ~ t)[1:][:2] ~ s.city[1:] ~ s['city'] }}",
        "{{ l[-1:]|first ~ l[n-2:] ~ l[:] ~ l[::2] ~ l[n - 3:n:n - 1] }}",
        "{{ not [][::-1] }}{{ t ~ t }}",
        "{{ (()|batch(2))[::-1] }}{{ t ~ t }}",
        "{{ not n in l ~ t }}{{ n not in l + l }}{{ not (n == 3 and t) ~ t }}",
        "{{ 1 < n * 1 <= 3 != 4 ~ '' }}",
        "{{ (l + l)|length is divisibleby 2 }}{{ l + l is sequence }}{{ (l + l) is iterable }}{{ l[1:] is sequence }}",
        "{{ {'a': [t, {'b': (n,)}], n: (l + l)|list} }}{{ [[], (), {}, [n]] }}{{ {} }}",
        "{% set (a, b), c = (t, n), l %}{{ a ~ b ~ c }}{% set d, = [t ~ t] %}{{ d }}",
        "{% for a, b in [(t, n)] + [[n, t]] %}{{ a ~ b }}{{ loop.last ~ loop.index }}{% endfor %}",
        "{% for i in l + l if i ~ '' == 'p' %}{{ i ~ t }}{% else %}none{% endfor %}",
        "{% for i in [[t, [n ~ t]], t] recursive %}<{{ i if i is string else loop(i) }}>raw{% endfor %}",
        "{% for i in [[[t ~ t]]] recursive %}<{{ loop(i) if i is not string else i }}{{ loop.depth }}>{% endfor %}",
        "{% for i in [[[]]] recursive %}<{{ loop(i) }}>{{ t ~ t }}{% endfor %}",
        "{% macro a(x, y=t ~ t, z=2) %}{{ x ~ y ~ z }}{{ caller is defined }}{% endmacro %}{{ a(1) ~ a(1, z=l + l) ~ a(*[1, 2], **{'z': 3}) }}",
        "{% macro a(x) %}{{ caller(x ~ t, 2) }}{% endmacro %}{% call(p, q=1) a(t) %}{{ p ~ q }}{% endcall %}",
        "{% set x = 1e300 * 10 ~ 1e-7 ~ 1.0 ~ 0x1f ~ 1_000 ~ 18446744073709551616 %}{{ x }}{{ 1e999 ~ '' }}",
        "{{ 'a' 'b' ~ \"\\u00e4\\\\'\\t\\x41\" }}",
        "{% if n == 1 %}a{% elif n ~ '' == '3' %}b{% else %}{% if t %}c{% endif %}{% endif %}",
        "{  {{- t ~ t }} { {%- if n %}{ {# c #}{{ t }}{% endif %}",
        "{% set x %}{{ '{' }} { {{ t ~ t }}\r\n {%- endset +%}\n{{ x }}\n",
        "{% do ns %}",
        "{{ none ~ true ~ [true, none] ~ s ~ row }}{{ none + 1 }}",
    ] {
        assert_same(template);
    }
}

#[test]
fn an_error_names_the_line_that_it_is_on() {
    for (template, line) in [
        ("a\n{# note\n #}{{ t ~ t }}\n{%- set x = l +\n l %}\n{% raw %}\n{% endraw %}{{\n s.nothing ~ t }}", 8),
        ("{% set x %}\n\n\n{{ t ~ t }}{% endset %}\n\n{{ t\n ~ t|float }}", 7),
        ("{{ t ~\n t }}{% for i in l %}\n{{ n\n}}{{ i\n *  t }}{% endfor %}", 5),
    ] {
        let rewritten = rewrite::rewrite(template, &syntax()).unwrap();
        assert_ne!(template, rewritten);
        let (before, after) = (rendered(template).unwrap_err(), rendered(&rewritten).unwrap_err());
        assert_eq!((before.1, after.1), (Some(line), Some(line)), "{before:?} {after:?} {rewritten}");
    }
}

#[test]
fn a_template_that_builds_nothing_is_left_alone() {
    for template in [
        "{{ t|upper }}",
        "{% for i in l %}{ text {{ i }}{% endfor %}",
        "{% if n + 1 > 2 %}{{ [1, 2]|join }}{% endif %}",
    ] {
        assert_eq!(rewrite::rewrite(template, &syntax()).unwrap(), template);
    }
}

#[test]
fn long_chains_are_rewritten_and_deep_brackets_refused() {
    for link in [" ~ t", " + t", " * n", "|upper", " ~ (t + t)"] {
        assert!(rewrite::rewrite(&format!("{{{{ t{} }}}}", link.repeat(60)), &syntax()).is_ok(), "{link}");
    }
    let elifs = format!("{{% if n %}}{{{{ t ~ t }}}}{}{{% endif %}}", "{% elif n %}x".repeat(199));
    assert!(rewrite::rewrite(&elifs, &syntax()).is_ok());
    let error = rewrite::rewrite(&format!("{{{{ t{} }}}}", "[0:]".repeat(100)), &syntax()).unwrap_err();
    assert!(error.to_string().contains("set"), "{error}");
}
