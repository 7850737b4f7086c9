//! Writes a syntax tree as a template again, with the filters of `budget` in it.
//!
//! The text is made from the tree and not by insertions into the source: minijinja's spans leave brackets out, and start
//! late in chains. What is written stands on the line that it has in the source, so that errors name the right one.
//! Brackets are written only where they are needed, since minijinja bounds how deep they nest; [`Style::Explicit`] writes
//! them everywhere, which shows the tree itself and lets `rewrite` compare two.

use std::fmt::Write as _;

use minijinja::machinery::Span;
use minijinja::machinery::ast::{BinOp, BinOpKind, CallArg, Compare, CompareOpKind, Expr, Filter, Slice, UnaryOpKind};
use minijinja::value::Value;

use crate::budget::BUILT;
use crate::levels::{Level, next, operator};
use crate::operations::{JOINED, PLUS, TIMES};

/// How a tree is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// As a template.
    Template,
    /// With all brackets, to compare trees.
    Explicit,
}

/// A template in the making.
pub(crate) struct Printer {
    pub(crate) out: String,
    pub(crate) style: Style,
    /// Whether the filters of `budget` are put in.
    pub(crate) charging: bool,
    /// Whether anything had to be.
    pub(crate) charged: bool,
    /// Whether what is emitted here goes into a value and not into the prompt.
    pub(crate) captured: bool,
    pub(crate) line: u16,
}

impl Printer {
    pub(crate) fn new(style: Style, charging: bool) -> Self {
        Self { out: String::new(), style, charging, charged: false, captured: false, line: 1 }
    }

    pub(crate) fn push(&mut self, text: &str) {
        self.out.push_str(text);
    }

    /// Goes on to the line of the source.
    pub(crate) fn at(&mut self, span: Span) {
        while self.style == Style::Template && self.line < span.start_line {
            self.out.push('\n');
            self.line += 1;
        }
    }

    fn charge(&mut self, filter: &str) {
        self.charged = true;
        self.push("|");
        self.push(filter);
    }

    /// An expression where only what binds as tightly as `least` may stand without brackets.
    pub(crate) fn expression(&mut self, expression: &Expr<'_>, least: Level) {
        self.bracketed(self.level(expression) < least, |printer| printer.bare(expression));
    }

    fn bracketed(&mut self, needed: bool, inside: impl FnOnce(&mut Self)) {
        let brackets = needed || self.style == Style::Explicit;
        if brackets {
            self.push("(");
        }
        inside(self);
        if brackets {
            self.push(")");
        }
    }

    /// An expression with a filter of ours, where it is charging.
    pub(crate) fn charged(&mut self, expression: &Expr<'_>, filter: &str, least: Level) {
        if !self.charging {
            return self.expression(expression, least);
        }
        self.bracketed(Level::Filter < least, |printer| {
            printer.expression(expression, Level::Filter);
            printer.charge(filter);
        });
    }

    /// What an expression is once its filters are in.
    fn level(&self, expression: &Expr<'_>) -> Level {
        match expression {
            _ if self.charging && is_charged(expression) => Level::Filter,
            Expr::Const(constant) if constant.value.is_number() => Level::Negative,
            Expr::IfExpr(_) => Level::If,
            Expr::Compare(_) => Level::Compare,
            Expr::UnaryOp(operation) => match operation.op {
                UnaryOpKind::Not => Level::Not,
                UnaryOpKind::Neg => Level::Negative,
            },
            Expr::BinOp(operation) => operator(operation.op).1,
            Expr::Filter(_) | Expr::Test(_) => Level::Filter,
            _ => Level::Postfix,
        }
    }

    /// An expression without brackets around it.
    fn bare(&mut self, expression: &Expr<'_>) {
        self.at(expression.span());
        match expression {
            Expr::BinOp(operation) if self.charging && is_charged(expression) => self.built(operation),
            _ if self.charging && is_charged(expression) => {
                self.bracketed(false, |printer| printer.core(expression));
                self.charge(BUILT);
            }
            _ => self.core(expression),
        }
    }

    /// An expression without a filter of its own.
    fn core(&mut self, expression: &Expr<'_>) {
        match expression {
            Expr::BinOp(operation) => self.operation(operation),
            Expr::Slice(slice) => self.slice(slice),
            Expr::List(list) => self.items("[", &list.items, "]"),
            Expr::Tuple(tuple) => self.items("(", &tuple.items, if tuple.items.len() == 1 { ",)" } else { ")" }),
            Expr::Map(map) => {
                self.push("{");
                for (key, value) in map.keys.iter().zip(&map.values) {
                    self.expression(key, Level::If);
                    self.push(": ");
                    self.expression(value, Level::If);
                    self.push(", ");
                }
                self.push("}");
            }
            other => self.unbuilt(other),
        }
    }

    /// An expression that builds nothing itself.
    fn unbuilt(&mut self, expression: &Expr<'_>) {
        match expression {
            Expr::Var(variable) => self.push(variable.id),
            Expr::Const(constant) => self.constant(&constant.value),
            Expr::UnaryOp(operation) => {
                let (sign, least) = match operation.op {
                    UnaryOpKind::Not => ("not ", Level::Not),
                    UnaryOpKind::Neg => ("-", Level::Negative),
                };
                self.push(sign);
                self.expression(&operation.expr, least);
            }
            Expr::Compare(comparison) => self.comparison(comparison),
            Expr::IfExpr(branch) => {
                self.expression(&branch.true_expr, Level::Or);
                self.push(" if ");
                self.expression(&branch.test_expr, Level::Or);
                if let Some(other) = &branch.false_expr {
                    self.push(" else ");
                    self.expression(other, Level::If);
                }
            }
            Expr::Filter(filter) => self.filter(filter, expression.span()),
            Expr::Test(test) => {
                self.expression(&test.expr, Level::Filter);
                self.push(" is ");
                self.at(test.span());
                self.push(test.name);
                // Without brackets the next word would be taken for an argument.
                self.arguments(&test.args);
            }
            Expr::GetAttr(attribute) => {
                self.expression(&attribute.expr, Level::Postfix);
                self.push(".");
                self.push(attribute.name);
            }
            Expr::GetItem(item) => {
                self.expression(&item.expr, Level::Postfix);
                self.push("[");
                self.expression(&item.subscript_expr, Level::If);
                self.push("]");
            }
            Expr::Call(call) => {
                self.expression(&call.expr, Level::Postfix);
                self.arguments(&call.args);
            }
            Expr::Slice(_) | Expr::BinOp(_) | Expr::List(_) | Expr::Tuple(_) | Expr::Map(_) => {}
        }
    }

    /// An operation that builds a text or list, as a filter over its parts: a chain of `~` or `+` as one.
    fn built(&mut self, operation: &BinOp<'_>) {
        let (mut first, mut others) = (&operation.left, vec![&operation.right]);
        while let Expr::BinOp(inner) = first
            && same_chain(operation, inner)
        {
            others.push(&inner.right);
            first = &inner.left;
        }
        self.expression(first, Level::Filter);
        self.charge(match operation.op {
            BinOpKind::Concat => JOINED,
            BinOpKind::Add => PLUS,
            _ => TIMES,
        });
        self.push("(");
        for (place, other) in others.into_iter().rev().enumerate() {
            self.push(if place > 0 { ", " } else { "" });
            self.expression(other, Level::If);
        }
        self.push(")");
    }

    fn operation(&mut self, operation: &BinOp<'_>) {
        let (sign, level) = operator(operation.op);
        let (left, right) = if level == Level::Compare { (Level::Sum, Level::Sum) } else { (level, next(level)) };
        self.expression(&operation.left, left);
        self.push(sign);
        self.expression(&operation.right, right);
    }

    fn comparison(&mut self, comparison: &Compare<'_>) {
        self.expression(&comparison.expr, Level::Sum);
        for op in &comparison.ops {
            self.push(match op.op {
                CompareOpKind::Eq => " == ",
                CompareOpKind::Ne => " != ",
                CompareOpKind::Lt => " < ",
                CompareOpKind::Lte => " <= ",
                CompareOpKind::Gt => " > ",
                CompareOpKind::Gte => " >= ",
                CompareOpKind::In => " in ",
                CompareOpKind::NotIn => " not in ",
            });
            self.expression(&op.expr, Level::Sum);
        }
    }

    /// A filter with what it is applied to, which a block's filter lacks.
    pub(crate) fn filter(&mut self, filter: &Filter<'_>, span: Span) {
        if let Some(input) = &filter.expr {
            self.expression(input, Level::Filter);
            self.push("|");
        }
        self.at(span);
        self.push(filter.name);
        if !filter.args.is_empty() {
            self.arguments(&filter.args);
        }
    }

    fn slice(&mut self, slice: &Slice<'_>) {
        // Backwards, or by what only the row knows, minijinja takes the whole text apart first.
        let forwards = slice.step.as_ref().is_none_or(|step| matches!(step, Expr::Const(_)));
        if self.charging && !forwards {
            self.charged(&slice.expr, BUILT, Level::Postfix);
        } else {
            self.expression(&slice.expr, Level::Postfix);
        }
        self.push("[");
        for (place, bound) in [&slice.start, &slice.stop, &slice.step].into_iter().enumerate() {
            if place > 0 {
                self.push(":");
            }
            if let Some(bound) = bound {
                self.expression(bound, Level::If);
            }
        }
        self.push("]");
    }

    fn items(&mut self, open: &str, items: &[Expr<'_>], close: &str) {
        self.push(open);
        for (place, item) in items.iter().enumerate() {
            if place > 0 {
                self.push(", ");
            }
            self.expression(item, Level::If);
        }
        self.push(close);
    }

    pub(crate) fn arguments(&mut self, arguments: &[CallArg<'_>]) {
        self.push("(");
        for (place, argument) in arguments.iter().enumerate() {
            if place > 0 {
                self.push(", ");
            }
            match argument {
                CallArg::Pos(value) => self.expression(value, Level::If),
                CallArg::Kwarg(name, value) => {
                    self.push(name);
                    self.push("=");
                    self.expression(value, Level::If);
                }
                // What is spread is copied.
                CallArg::PosSplat(value) => {
                    self.push("*");
                    self.charged(value, BUILT, Level::If);
                }
                CallArg::KwargSplat(value) => {
                    self.push("**");
                    self.charged(value, BUILT, Level::If);
                }
            }
        }
        self.push(")");
    }

    fn constant(&mut self, value: &Value) {
        if let Some(text) = value.as_str() {
            return self.quoted(text);
        }
        let float = if value.is_integer() { None } else { f64::try_from(value.clone()).ok() };
        // Writing to a `String` can't fail.
        let _ = match float {
            _ if value.is_none() => write!(self.out, "none"),
            Some(number) if number.is_infinite() => write!(self.out, "1e999"),
            Some(number) if value.is_number() => write!(self.out, "{number:?}"),
            _ => write!(self.out, "{value}"),
        };
    }

    pub(crate) fn quoted(&mut self, text: &str) {
        self.push("'");
        for character in text.chars() {
            match character {
                '\\' => self.push("\\\\"),
                '\'' => self.push("\\'"),
                '\n' => self.push("\\n"),
                '\r' => self.push("\\r"),
                other => self.out.push(other),
            }
        }
        self.push("'");
    }
}

/// Whether an expression becomes a filtered one.
fn is_charged(expression: &Expr<'_>) -> bool {
    let is_built = |item: &Expr<'_>| !matches!(item, Expr::Const(_));
    match expression {
        Expr::Slice(_) => true,
        Expr::List(list) => list.items.iter().any(is_built),
        Expr::Tuple(tuple) => tuple.items.iter().any(is_built),
        Expr::Map(map) => map.keys.iter().chain(&map.values).any(is_built),
        Expr::BinOp(operation) => matches!(operation.op, BinOpKind::Mul | BinOpKind::Concat) || is_sum(operation),
        _ => false,
    }
}

/// Whether an operation can put texts or lists together with `+`. With a number beside it, it can only be arithmetic.
fn is_sum(operation: &BinOp<'_>) -> bool {
    let is_number = |side: &Expr<'_>| matches!(side, Expr::Const(constant) if constant.value.is_number());
    matches!(operation.op, BinOpKind::Add) && !is_number(&operation.left) && !is_number(&operation.right)
}

/// Whether an operation is the start of another's chain.
fn same_chain(whole: &BinOp<'_>, start: &BinOp<'_>) -> bool {
    match whole.op {
        BinOpKind::Concat => matches!(start.op, BinOpKind::Concat),
        BinOpKind::Add => is_sum(start),
        _ => false,
    }
}
