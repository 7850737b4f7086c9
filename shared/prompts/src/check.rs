//! Checks a template's syntax tree against the columns, and finds which columns it needs.
//!
//! Each name is looked up as minijinja will do it: what the template itself sets, then the columns, then the few functions.
//! A name that the template sets *and* a column has counts as a use of the column too: whether the assignment runs can
//! depend on the row. minijinja's own list of undeclared names knows neither constant subscripts nor filters.

use std::collections::{BTreeSet, HashMap, HashSet};

use minijinja::machinery::ast::{BinOpKind, Call, CallArg, Expr, Macro, Stmt};
use minijinja::machinery::{Span, parse};
use minijinja::value::Value;
use minijinja::{Environment, State};

use crate::{NAME, Piece, TemplateError, budget};

/// Names that are there without a column.
const FUNCTIONS: [&str; 3] = ["range", "dict", "namespace"];

/// What a template needs.
pub(crate) struct Found {
    /// Columns by their place in the table, ascending.
    pub(crate) columns: Vec<usize>,
    /// The whole template, if it is only text and plain columns. The columns are places in the table.
    pub(crate) plain: Option<Vec<Piece>>,
}

/// Checks everything that does not depend on a row.
pub(crate) fn check(source: &str, environment: &Environment<'_>, columns: &[String]) -> Result<Found, TemplateError> {
    let tree = parse(source, NAME, environment.syntax().clone()).map_err(|error| TemplateError::from_syntax(&error))?;
    let Stmt::Template(template) = &tree else { return Ok(Found { columns: Vec::new(), plain: None }) };
    let mut checker = Checker {
        state: environment.empty_state(),
        columns,
        places: columns.iter().enumerate().map(|(place, name)| (name.as_str(), place)).collect(),
        used: BTreeSet::new(),
        scopes: vec![HashSet::new()],
    };
    // Macros may call one another in any order.
    for statement in &template.children {
        if let Stmt::Macro(definition) = statement {
            checker.define(definition.name);
        }
    }
    checker.statements(&template.children)?;
    let plain = template.children.iter().map(|statement| checker.piece(statement)).collect();
    Ok(Found { columns: checker.used.into_iter().collect(), plain })
}

struct Checker<'a> {
    state: State<'a, 'a>,
    columns: &'a [String],
    places: HashMap<&'a str, usize>,
    used: BTreeSet<usize>,
    /// Names that the template has set so far, innermost scope last.
    scopes: Vec<HashSet<String>>,
}

type Checked = Result<(), TemplateError>;

impl Checker<'_> {
    fn statements(&mut self, statements: &[Stmt<'_>]) -> Checked {
        statements.iter().try_for_each(|statement| self.statement(statement))
    }

    fn statement(&mut self, statement: &Stmt<'_>) -> Checked {
        match statement {
            Stmt::Template(template) => self.statements(&template.children),
            Stmt::EmitExpr(emit) => self.expression(&emit.expr),
            Stmt::EmitRaw(_) => Ok(()),
            Stmt::ForLoop(each) => {
                self.expression(&each.iter)?;
                self.scoped(|checker| {
                    checker.define("loop");
                    checker.assign(&each.target)?;
                    each.filter_expr.iter().try_for_each(|filter| checker.expression(filter))?;
                    checker.statements(&each.body)
                })?;
                self.scoped(|checker| checker.statements(&each.else_body))
            }
            Stmt::IfCond(branch) => {
                self.expression(&branch.expr)?;
                self.statements(&branch.true_body)?;
                self.statements(&branch.false_body)
            }
            Stmt::WithBlock(with) => self.scoped(|checker| {
                for (target, value) in &with.assignments {
                    checker.expression(value)?;
                    checker.assign(target)?;
                }
                checker.statements(&with.body)
            }),
            Stmt::Set(set) => {
                self.expression(&set.expr)?;
                self.assign(&set.target)
            }
            Stmt::SetBlock(set) => {
                self.scoped(|checker| checker.statements(&set.body))?;
                set.filter.iter().try_for_each(|filter| self.expression(filter))?;
                self.assign(&set.target)
            }
            Stmt::AutoEscape(block) => {
                invalid("{% autoescape %} has no place in a prompt: nothing is escaped", block.span())
            }
            Stmt::Block(block) => no_other_templates(block.span()),
            Stmt::Extends(parent) => no_other_templates(parent.span()),
            Stmt::Include(other) => no_other_templates(other.span()),
            Stmt::Import(other) => no_other_templates(other.span()),
            Stmt::FromImport(other) => no_other_templates(other.span()),
            Stmt::FilterBlock(block) => {
                self.expression(&block.filter)?;
                self.scoped(|checker| checker.statements(&block.body))
            }
            Stmt::Macro(definition) => {
                self.define(definition.name);
                self.macro_body(definition)
            }
            Stmt::CallBlock(block) => {
                self.call(&block.call, block.call.span())?;
                self.macro_body(&block.macro_decl)
            }
            Stmt::Do(block) => self.call(&block.call, block.call.span()),
        }
    }

    fn macro_body(&mut self, definition: &Macro<'_>) -> Checked {
        self.scoped(|checker| {
            checker.define("caller");
            definition.args.iter().try_for_each(|argument| checker.assign(argument))?;
            definition.defaults.iter().try_for_each(|default| checker.expression(default))?;
            checker.statements(&definition.body)
        })
    }

    fn scoped(&mut self, inside: impl FnOnce(&mut Self) -> Checked) -> Checked {
        self.scopes.push(HashSet::new());
        let result = inside(self);
        self.scopes.pop();
        result
    }

    fn define(&mut self, name: &str) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name.to_owned());
        }
    }

    fn is_set(&self, name: &str) -> bool {
        self.scopes.iter().any(|scope| scope.contains(name))
    }

    fn assign(&mut self, target: &Expr<'_>) -> Checked {
        match target {
            Expr::Var(variable) if variable.id == "row" => {
                invalid("'row' is the whole row and can't be assigned to: choose another name", target.span())
            }
            Expr::Var(variable) => {
                self.define(variable.id);
                Ok(())
            }
            Expr::List(list) => list.items.iter().try_for_each(|item| self.assign(item)),
            Expr::Tuple(tuple) => tuple.items.iter().try_for_each(|item| self.assign(item)),
            other => self.expression(other),
        }
    }

    fn expression(&mut self, expression: &Expr<'_>) -> Checked {
        if let Some((name, span)) = row_column(expression) {
            return self.column(&name, span);
        }
        match expression {
            Expr::Var(variable) => self.variable(variable.id, variable.span()),
            Expr::Const(_) => Ok(()),
            Expr::Slice(slice) => {
                let bounds = [&slice.start, &slice.stop, &slice.step];
                self.expression(&slice.expr)?;
                bounds.into_iter().flatten().try_for_each(|bound| self.expression(bound))
            }
            Expr::UnaryOp(operation) => self.expression(&operation.expr),
            Expr::BinOp(operation) => {
                use BinOpKind as Op;
                if matches!(operation.op, Op::Eq | Op::Ne | Op::Lt | Op::Lte | Op::Gt | Op::Gte) {
                    refuse_none([&operation.left, &operation.right])?;
                }
                self.expression(&operation.left)?;
                self.expression(&operation.right)
            }
            Expr::Compare(comparison) => {
                refuse_none(comparison.ops.iter().map(|op| &op.expr).chain([&comparison.expr]))?;
                self.expression(&comparison.expr)?;
                comparison.ops.iter().try_for_each(|op| self.expression(&op.expr))
            }
            Expr::IfExpr(branch) => {
                self.expression(&branch.test_expr)?;
                self.expression(&branch.true_expr)?;
                branch.false_expr.iter().try_for_each(|other| self.expression(other))
            }
            Expr::Filter(filter) => {
                self.known("filter", filter.name, filter.span())?;
                filter.expr.iter().try_for_each(|input| self.expression(input))?;
                self.arguments(&filter.args)
            }
            Expr::Test(test) => {
                self.known("test", test.name, test.span())?;
                refuse_none(
                    test.args
                        .iter()
                        .filter_map(|argument| if let CallArg::Pos(value) = argument { Some(value) } else { None }),
                )?;
                self.expression(&test.expr)?;
                self.arguments(&test.args)
            }
            Expr::GetAttr(attribute) => self.expression(&attribute.expr),
            Expr::GetItem(item) => {
                self.expression(&item.expr)?;
                self.expression(&item.subscript_expr)
            }
            Expr::Call(call) => self.call(call, call.span()),
            Expr::List(list) => list.items.iter().try_for_each(|item| self.expression(item)),
            Expr::Tuple(tuple) => tuple.items.iter().try_for_each(|item| self.expression(item)),
            Expr::Map(map) => map.keys.iter().chain(&map.values).try_for_each(|item| self.expression(item)),
        }
    }

    fn arguments(&mut self, arguments: &[CallArg<'_>]) -> Checked {
        arguments.iter().try_for_each(|argument| match argument {
            CallArg::Pos(value) | CallArg::Kwarg(_, value) | CallArg::PosSplat(value) | CallArg::KwargSplat(value) => {
                self.expression(value)
            }
        })
    }

    fn call(&mut self, call: &Call<'_>, span: Span) -> Checked {
        match &call.expr {
            Expr::Var(variable) if !self.is_set(variable.id) && !FUNCTIONS.contains(&variable.id) => {
                return invalid(
                    format!("there is no function '{}': there are {}", variable.id, FUNCTIONS.join(", ")),
                    span,
                );
            }
            Expr::Var(_) => {}
            Expr::GetAttr(method) if !matches!(&method.expr, Expr::Var(variable) if self.is_set(variable.id)) => {
                let name = method.name;
                return invalid(
                    format!("values have no methods: write the filter '|{name}' instead of '.{name}()'"),
                    span,
                );
            }
            other => self.expression(other)?,
        }
        self.arguments(&call.args)
    }

    fn variable(&mut self, name: &str, span: Span) -> Checked {
        if name == "row" {
            if self.places.contains_key("row") {
                return invalid(
                    "'row' is the whole row, and the input also has a column of that name: write row['row'] for the column",
                    span,
                );
            }
            self.used.extend(0..self.columns.len());
            return Ok(());
        }
        let known = self.is_set(name) || FUNCTIONS.contains(&name);
        if self.places.contains_key(name) || !known { self.column(name, span) } else { Ok(()) }
    }

    fn column(&mut self, name: &str, span: Span) -> Checked {
        let Some(place) = self.places.get(name) else {
            let line = Some(usize::from(span.start_line));
            return Err(TemplateError::UnknownColumn { name: name.to_owned(), line, available: self.columns.to_vec() });
        };
        self.used.insert(*place);
        Ok(())
    }

    /// minijinja looks filters and tests up only when they run; here it is asked beforehand, by its own tests for them.
    fn known(&mut self, what: &'static str, name: &str, span: Span) -> Checked {
        match self.state.perform_test(what, &[Value::from(name)]) {
            Ok(true) if !budget::is_own(name) => Ok(()),
            _ => invalid(format!("there is no {what} '{name}'"), span),
        }
    }

    /// The statement as a piece that needs no minijinja.
    fn piece(&self, statement: &Stmt<'_>) -> Option<Piece> {
        match statement {
            Stmt::EmitRaw(text) => Some(Piece::Literal(text.raw.to_owned())),
            Stmt::EmitExpr(emit) => {
                let name = match (&emit.expr, row_column(&emit.expr)) {
                    (_, Some((name, _))) => name,
                    (Expr::Var(variable), None) if variable.id != "row" => variable.id.to_owned(),
                    _ => return None,
                };
                self.places.get(name.as_str()).copied().map(Piece::Column)
            }
            _ => None,
        }
    }
}

/// The column that `row['name']` or `row.name` stands for.
fn row_column(expression: &Expr<'_>) -> Option<(String, Span)> {
    let is_row = |expression: &Expr<'_>| matches!(expression, Expr::Var(variable) if variable.id == "row");
    match expression {
        Expr::GetAttr(attribute) if is_row(&attribute.expr) => Some((attribute.name.to_owned(), attribute.span())),
        Expr::GetItem(item) if is_row(&item.expr) => {
            let name = constant(&item.subscript_expr)?;
            // A constant that is no text (`row[0]`) names no column either; it is refused by its own spelling.
            Some((name.as_str().map_or_else(|| name.to_string(), str::to_owned), item.span()))
        }
        _ => None,
    }
}

/// The value of a constant subscript. minijinja's own folding would also repeat a text a hundred million times.
fn constant(expression: &Expr<'_>) -> Option<Value> {
    match expression {
        Expr::Const(constant) => Some(constant.value.clone()),
        Expr::UnaryOp(operation) if matches!(operation.expr, Expr::Const(_)) => expression.as_const(),
        Expr::BinOp(operation) if matches!(operation.op, BinOpKind::Concat) => {
            Some(Value::from(format!("{}{}", constant(&operation.left)?, constant(&operation.right)?)))
        }
        _ => None,
    }
}

fn refuse_none<'e, 's: 'e>(operands: impl IntoIterator<Item = &'e Expr<'s>>) -> Checked {
    for operand in operands {
        if matches!(operand, Expr::Const(constant) if constant.value.is_none()) {
            return invalid("nothing equals none: write 'is none' or 'is not none'", operand.span());
        }
    }
    Ok(())
}

fn no_other_templates(span: Span) -> Checked {
    invalid("a job has this one template: there are no blocks, includes or imports", span)
}

fn invalid(message: impl Into<String>, span: Span) -> Checked {
    Err(TemplateError::Invalid { message: message.into(), line: Some(usize::from(span.start_line)) })
}
