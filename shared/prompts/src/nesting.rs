//! How deeply a template may nest, looked at before it is parsed.
//!
//! minijinja bounds how deep brackets and blocks nest, but not how long a chain is: `a ~ a ~ a …` and `a|upper|upper …` become
//! a tree as deep as the chain is long, and whoever walks that tree, or frees it, needs stack for it. A stack that
//! overflows ends the process, so a template that comes from outside must not get so far.

use minijinja::machinery::{Token, tokenize};
use minijinja::syntax::SyntaxConfig;

use crate::TemplateError;

/// The most operators, filters and brackets of one tag.
const MAX_OPERATORS: usize = 200;
/// The most `elif` of a template: each lies within the one before it.
const MAX_ELIFS: usize = 200;

/// Checks the length of every chain.
///
/// # Errors
/// When one is too long. What can't be tokenized is left to the parser, which says it better.
pub(crate) fn check(source: &str, syntax: SyntaxConfig) -> Result<(), TemplateError> {
    let (mut operators, mut elifs) = (0, 0);
    for token in tokenize(source, false, syntax) {
        let Ok((token, span)) = token else { return Ok(()) };
        let too_long =
            |message: String| Err(TemplateError::Invalid { message, line: Some(usize::from(span.start_line)) });
        match token {
            Token::VariableStart | Token::BlockStart => operators = 0,
            Token::Ident("elif") => elifs += 1,
            _ if nests(&token) => operators += 1,
            _ => {}
        }
        if operators > MAX_OPERATORS {
            return too_long(format!(
                "a tag has more than {MAX_OPERATORS} operators, filters and brackets: divide it, with set if need be"
            ));
        }
        if elifs > MAX_ELIFS {
            return too_long(format!("the template has more than {MAX_ELIFS} elif: look the text up in a map instead"));
        }
    }
    Ok(())
}

/// Whether a token may make the tree deeper.
fn nests(token: &Token<'_>) -> bool {
    match token {
        Token::Ident(word) => matches!(*word, "and" | "or" | "not" | "is" | "in" | "if" | "else"),
        Token::TemplateData(_)
        | Token::VariableEnd
        | Token::BlockEnd
        | Token::Str(_)
        | Token::String(_)
        | Token::Int(_)
        | Token::Int128(_)
        | Token::Float(_)
        | Token::Comma
        | Token::Colon
        | Token::Assign
        | Token::BracketClose
        | Token::ParenClose
        | Token::BraceClose => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_refused(source: &str) -> bool {
        check(source, SyntaxConfig::default()).is_err()
    }

    #[test]
    fn long_chains_are_refused_and_long_lists_and_texts_are_not() {
        for link in [" ~ a", "|upper", ".b", "[0]", " + 1", " or a", " if a else a", " == a"] {
            assert!(is_refused(&format!("{{{{ a{} }}}}", link.repeat(201))), "{link}");
            assert!(!is_refused(&format!("{{{{ a{} }}}}", link.repeat(90))), "{link}");
        }
        assert!(is_refused(&format!("{{{{ {}a }}}}", "not ".repeat(201))));
        assert!(is_refused(&format!("{{% if a %}}{}{{% endif %}}", "{% elif a %}x".repeat(201))));
        assert!(!is_refused(&"{{ a ~ b }} and {% if a %}b{% endif %}, ".repeat(1_000)));
        assert!(!is_refused(&format!("{{{{ a in [{}] }}}}", "'x', ".repeat(5_000))));
        assert!(!is_refused("{{ ' unclosed"));
    }
}
