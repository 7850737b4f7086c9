//! How tightly the operators of a template bind, as minijinja's grammar has it. `print` needs it to leave brackets out.

use minijinja::machinery::ast::BinOpKind;

/// How tightly an expression binds; the names are those of the grammar's levels.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    If,
    Or,
    And,
    Not,
    Compare,
    Sum,
    Concat,
    Product,
    Power,
    Filter,
    Negative,
    Postfix,
}

/// An operator's sign, and the level of its expression.
pub(crate) fn operator(kind: BinOpKind) -> (&'static str, Level) {
    match kind {
        BinOpKind::ScOr => (" or ", Level::Or),
        BinOpKind::ScAnd => (" and ", Level::And),
        BinOpKind::Eq => (" == ", Level::Compare),
        BinOpKind::Ne => (" != ", Level::Compare),
        BinOpKind::Lt => (" < ", Level::Compare),
        BinOpKind::Lte => (" <= ", Level::Compare),
        BinOpKind::Gt => (" > ", Level::Compare),
        BinOpKind::Gte => (" >= ", Level::Compare),
        BinOpKind::In => (" in ", Level::Compare),
        BinOpKind::Add => (" + ", Level::Sum),
        BinOpKind::Sub => (" - ", Level::Sum),
        BinOpKind::Concat => (" ~ ", Level::Concat),
        BinOpKind::Mul => (" * ", Level::Product),
        BinOpKind::Div => (" / ", Level::Product),
        BinOpKind::FloorDiv => (" // ", Level::Product),
        BinOpKind::Rem => (" % ", Level::Product),
        BinOpKind::Pow => (" ** ", Level::Power),
    }
}

/// The level of an operator's right side: its operators are left-associative.
pub(crate) fn next(level: Level) -> Level {
    match level {
        Level::If => Level::Or,
        Level::Or => Level::And,
        Level::And => Level::Not,
        Level::Not => Level::Compare,
        Level::Compare => Level::Sum,
        Level::Sum => Level::Concat,
        Level::Concat => Level::Product,
        Level::Product => Level::Power,
        Level::Power => Level::Filter,
        Level::Filter => Level::Negative,
        Level::Negative | Level::Postfix => Level::Postfix,
    }
}
