//! Puts the charging filters of `budget` into a template, wherever it builds a text or a list.
//!
//! | in the template | becomes |
//! |---|---|
//! | `a ~ b ~ c`, `a + b + c`, `a * b` | one filter over its parts, which charges before it builds |
//! | `x[a:b]`, `[a, b]`, `{'k': a}`, `f(*a)` | charged when they are made |
//! | `{% set n.a = x %}` | what the namespace is given, charged, and no namespace |
//! | literal text inside `set`, `filter`, `call` and macros, and in recursive loops | emitted as a constant, which the formatter charges |
//!
//! What comes out is parsed again and compared, tree with tree, to what was meant; a template for which they differ is
//! refused. So a mistake here can refuse a template, but neither change what it says nor let it through uncharged.

use minijinja::machinery::ast::{CallBlock, Expr, IfCond, Macro, Set, Stmt};
use minijinja::machinery::parse;
use minijinja::syntax::SyntaxConfig;

use crate::budget::HELD;
use crate::levels::Level;
use crate::print::{Printer, Style};
use crate::{NAME, TemplateError};

/// The template with the filters in it; as it stands if it needs none.
///
/// # Errors
/// When it can't be read with them: its brackets nest too deep.
pub(crate) fn rewrite(source: &str, syntax: &SyntaxConfig) -> Result<String, TemplateError> {
    let tree = parse(source, NAME, syntax.clone()).map_err(|error| TemplateError::from_syntax(&error))?;
    let written = print(&tree, Style::Template, true);
    if !written.charged {
        return Ok(source.to_owned());
    }
    let read = parse(&written.out, NAME, syntax.clone()).map_err(|error| TemplateError::Invalid {
        message: "its brackets, lists and slices nest too deep: divide them, with set if need be".to_owned(),
        line: error.line(),
    })?;
    if print(&tree, Style::Explicit, true).out != print(&read, Style::Explicit, false).out {
        let message = "its operators can't be told apart: put brackets around them, or divide them with set";
        return Err(TemplateError::Invalid { message: message.to_owned(), line: None });
    }
    Ok(written.out)
}

fn print(tree: &Stmt<'_>, style: Style, charging: bool) -> Printer {
    let mut printer = Printer::new(style, charging);
    printer.statement(tree);
    printer
}

impl Printer {
    fn statements(&mut self, statements: &[Stmt<'_>]) {
        for statement in statements {
            self.statement(statement);
        }
    }

    fn statement(&mut self, statement: &Stmt<'_>) {
        match statement {
            Stmt::Template(template) => self.statements(&template.children),
            Stmt::EmitRaw(text) => self.raw(text.raw),
            Stmt::EmitExpr(emit) => {
                if let (Style::Explicit, Expr::Const(constant)) = (self.style, &emit.expr)
                    && let Some(text) = constant.value.as_str()
                {
                    return self.raw(text);
                }
                self.push("{{ ");
                self.at(emit.span());
                self.expression(&emit.expr, Level::If);
                self.push(" }}");
            }
            Stmt::ForLoop(each) => {
                self.tag("for ", |printer| {
                    printer.at(each.span());
                    printer.target(&each.target);
                    printer.push(" in ");
                    printer.expression(&each.iter, Level::Or);
                    if let Some(filter) = &each.filter_expr {
                        printer.push(" if ");
                        printer.expression(filter, Level::If);
                    }
                    printer.push(if each.recursive { " recursive" } else { "" });
                });
                // `loop(…)` can be asked for as a value.
                self.capturing(each.recursive, |printer| printer.statements(&each.body));
                if !each.else_body.is_empty() {
                    self.push("{% else %}");
                    self.statements(&each.else_body);
                }
                self.push("{% endfor %}");
            }
            Stmt::IfCond(branch) => self.branches(branch),
            other => self.assignment(other),
        }
    }

    /// An `if` with its `elif`s, which the tree has one in the other, and which must not nest in what is written.
    fn branches(&mut self, first: &IfCond<'_>) {
        let (mut branch, mut word) = (first, "if ");
        loop {
            self.tag(word, |printer| printer.expression(&branch.expr, Level::Or));
            self.statements(&branch.true_body);
            match branch.false_body.as_slice() {
                [] => break,
                [Stmt::IfCond(next)] => (branch, word) = (next, "elif "),
                otherwise => {
                    self.push("{% else %}");
                    self.statements(otherwise);
                    break;
                }
            }
        }
        self.push("{% endif %}");
    }

    fn assignment(&mut self, statement: &Stmt<'_>) {
        match statement {
            Stmt::WithBlock(with) => {
                self.tag("with ", |printer| {
                    for (place, (target, value)) in with.assignments.iter().enumerate() {
                        printer.push(if place > 0 { ", " } else { "" });
                        printer.target(target);
                        printer.push(" = ");
                        printer.expression(value, Level::If);
                    }
                });
                self.statements(&with.body);
                self.push("{% endwith %}");
            }
            Stmt::Set(set) => self.tag("set ", |printer| {
                printer.at(set.span());
                printer.set(set);
            }),
            Stmt::SetBlock(set) => {
                self.tag("set ", |printer| {
                    printer.target(&set.target);
                    if let Some(Expr::Filter(filter)) = &set.filter {
                        printer.push("|");
                        printer.filter(filter, filter.span());
                    }
                });
                self.capturing(true, |printer| printer.statements(&set.body));
                self.push("{% endset %}");
            }
            Stmt::FilterBlock(block) => {
                self.tag("filter ", |printer| {
                    if let Expr::Filter(filter) = &block.filter {
                        printer.filter(filter, filter.span());
                    }
                });
                self.capturing(true, |printer| printer.statements(&block.body));
                self.push("{% endfilter %}");
            }
            Stmt::Macro(definition) => {
                self.tag("macro ", |printer| {
                    printer.push(definition.name);
                    printer.parameters(definition);
                });
                self.capturing(true, |printer| printer.statements(&definition.body));
                self.push("{% endmacro %}");
            }
            Stmt::CallBlock(block) => self.call_block(block),
            Stmt::Do(block) => self.tag("do ", |printer| {
                printer.at(block.call.span());
                printer.expression(&block.call.expr, Level::Postfix);
                printer.arguments(&block.call.args);
            }),
            // `check` has refused the others.
            _ => {}
        }
    }

    fn call_block(&mut self, block: &CallBlock<'_>) {
        self.tag("call", |printer| {
            printer.parameters(&block.macro_decl);
            printer.push(" ");
            printer.at(block.call.span());
            printer.expression(&block.call.expr, Level::Postfix);
            printer.arguments(&block.call.args);
        });
        self.capturing(true, |printer| printer.statements(&block.macro_decl.body));
        self.push("{% endcall %}");
    }

    fn tag(&mut self, word: &str, inside: impl FnOnce(&mut Self)) {
        self.push("{% ");
        self.push(word);
        inside(self);
        self.push(" %}");
    }

    fn capturing(&mut self, captured: bool, inside: impl FnOnce(&mut Self)) {
        let before = self.captured;
        self.captured |= captured;
        inside(self);
        self.captured = before;
    }

    fn set(&mut self, set: &Set<'_>) {
        self.target(&set.target);
        self.push(" = ");
        if holds(&set.target) {
            self.charged(&set.expr, HELD, Level::If);
        } else {
            self.expression(&set.expr, Level::If);
        }
    }

    /// Literal text. A `{` in it could become part of a tag, where white space was between them in the source.
    fn raw(&mut self, text: &str) {
        if self.style == Style::Explicit {
            // Neighbours run into one another, and nothing in them looks like a tag.
            return self.push(&text.replace('\\', "\\\\").replace('{', "\\{"));
        }
        self.charged |= self.captured;
        if self.captured || text.contains('{') {
            self.push("{{ ");
            self.quoted(text);
            return self.push(" }}");
        }
        self.push(text);
        let lines = text.bytes().filter(|byte| *byte == b'\n').count();
        self.line = self.line.saturating_add(u16::try_from(lines).unwrap_or(u16::MAX));
    }

    /// What is assigned to.
    fn target(&mut self, target: &Expr<'_>) {
        match target {
            Expr::Var(variable) => self.push(variable.id),
            Expr::GetAttr(attribute) => {
                self.target(&attribute.expr);
                self.push(".");
                self.push(attribute.name);
            }
            Expr::List(list) => {
                self.push("(");
                for item in &list.items {
                    self.target(item);
                    self.push(", ");
                }
                self.push(")");
            }
            // The parser makes no others.
            _ => {}
        }
    }

    fn parameters(&mut self, definition: &Macro<'_>) {
        self.push("(");
        let required = definition.args.len() - definition.defaults.len();
        for (place, argument) in definition.args.iter().enumerate() {
            self.push(if place > 0 { ", " } else { "" });
            self.target(argument);
            if let Some(default) = place.checked_sub(required).and_then(|place| definition.defaults.get(place)) {
                self.push("=");
                self.expression(default, Level::If);
            }
        }
        self.push(")");
    }
}

/// Whether an assignment is to a namespace's attribute.
fn holds(target: &Expr<'_>) -> bool {
    match target {
        Expr::GetAttr(_) => true,
        Expr::List(list) => list.items.iter().any(holds),
        _ => false,
    }
}
