//! Reads a body into a value, by the JSON form of HCL: a block is a map under its type and its labels.

use std::collections::HashMap;

use hcl_edit::{
    expr::{Expression, ObjectKey},
    structure::{Block, Body, Structure},
    template::Element,
};

use super::{Outcome, Problem, Value, parse, value};

pub(in super::super) fn read(text: &str) -> Outcome<Value> {
    body(&parse(text)?, 0)
}

/// The content under one name of a body, or under one label.
enum Node<'a> {
    Value(Value),
    /// Blocks with this type and these labels.
    Blocks(Vec<&'a Body>),
    Labels(Names<'a>),
}

#[derive(Default)]
struct Names<'a> {
    nodes: Vec<(&'a str, Node<'a>)>,
    indices: HashMap<&'a str, usize>,
}

impl<'a> Names<'a> {
    /// Returns the node of a name, and inserts it first if there is none.
    fn entry(&mut self, name: &'a str, make: impl FnOnce() -> Node<'a>) -> Option<&mut Node<'a>> {
        let at = *self.indices.entry(name).or_insert_with(|| {
            self.nodes.push((name, make()));
            self.nodes.len() - 1
        });
        self.nodes.get_mut(at).map(|(_, node)| node)
    }

    fn block(&mut self, block: &'a Block, depth: usize) -> Outcome<()> {
        let mut names = self;
        let mut depth = value::deeper(depth)?;
        let mut name = block.ident.as_str();
        for label in &block.labels {
            depth = value::deeper(depth)?;
            match names.entry(name, || Node::Labels(Names::default())) {
                Some(Node::Labels(inner)) => names = inner,
                _ => return Err(mixed(name)),
            }
            name = label.as_str();
        }
        match names.entry(name, || Node::Blocks(Vec::new())) {
            Some(Node::Blocks(bodies)) => bodies.push(&block.body),
            _ => return Err(mixed(name)),
        }
        Ok(())
    }

    fn into_value(self, depth: usize) -> Outcome<Value> {
        let depth = value::deeper(depth)?;
        let entries = self.nodes.into_iter().map(|(name, node)| {
            let value = match node {
                Node::Value(value) => value,
                Node::Labels(names) => names.into_value(depth)?,
                Node::Blocks(bodies) => match bodies.as_slice() {
                    [only] => body(only, depth)?,
                    several => {
                        let depth = value::deeper(depth)?;
                        Value::List(several.iter().map(|one| body(one, depth)).collect::<Outcome<_>>()?)
                    }
                },
            };
            Ok((name.to_owned(), value))
        });
        Ok(Value::Map(entries.collect::<Outcome<_>>()?))
    }
}

fn mixed(name: &str) -> Problem {
    Problem::invalid(format!(
        "the key {} is there twice, as an attribute and a block or with and without labels",
        value::shown(name)
    ))
}

fn body(body: &Body, depth: usize) -> Outcome<Value> {
    let mut names = Names::default();
    let inner = value::deeper(depth)?;
    for structure in body {
        match structure {
            Structure::Attribute(attribute) => {
                let name = attribute.key.as_str();
                if names.indices.contains_key(name) {
                    return Err(mixed(name));
                }
                let value = expression(&attribute.value, inner)?;
                names.entry(name, || Node::Value(value));
            }
            Structure::Block(block) => names.block(block, depth)?,
        }
    }
    names.into_value(depth)
}

/// The value of an expression that needs no evaluation.
pub(super) fn expression(expression: &Expression, depth: usize) -> Outcome<Value> {
    Ok(match expression {
        Expression::Null(_) => Value::Null,
        Expression::Bool(value) => Value::Bool(*value.value()),
        Expression::Number(number) => {
            let written = number.as_repr().map_or("", |written| written);
            self::number(written).ok_or_else(|| {
                let shown: String = written.chars().take(40).collect();
                Problem::invalid(format!("the number {shown} does not fit into 64 bits"))
            })?
        }
        Expression::String(text) => Value::Text(text.value().clone()),
        Expression::HeredocTemplate(heredoc) => {
            let literals = heredoc.template.iter().map(|element| match element {
                Element::Literal(text) => Ok(text.as_str()),
                _ => Err(unevaluated("a template")),
            });
            Value::Text(literals.collect::<Outcome<_>>()?)
        }
        Expression::Array(items) => {
            let depth = value::deeper(depth)?;
            Value::List(items.iter().map(|item| self::expression(item, depth)).collect::<Outcome<_>>()?)
        }
        Expression::Object(object) => {
            let depth = value::deeper(depth)?;
            let entries = object.iter().map(|(key, value)| {
                let key = match key {
                    ObjectKey::Ident(name) => name.as_str().to_owned(),
                    ObjectKey::Expression(key) => key.as_str().ok_or_else(|| unevaluated("a key"))?.to_owned(),
                };
                Ok((key, self::expression(value.expr(), depth)?))
            });
            Value::map(entries.collect::<Outcome<_>>()?)?
        }
        Expression::Parenthesis(inner) => self::expression(inner.inner(), depth)?,
        Expression::StringTemplate(_) => return Err(unevaluated("a template")),
        Expression::Variable(name) => return Err(unevaluated(&format!("the variable {}", value::shown(name)))),
        Expression::FuncCall(call) => {
            return Err(unevaluated(&format!("a call of {}", value::shown(call.name.name.as_str()))));
        }
        _ => return Err(unevaluated("an expression")),
    })
}

/// Parses a number from its source text: the parser makes an integer of `1.0`, and rounds an integer that does not fit.
fn number(written: &str) -> Option<Value> {
    // Blanks and comments may follow the sign.
    let begin = written.rfind(|char: char| !matches!(char, '0'..='9' | '.' | 'e' | 'E' | '+' | '-'));
    let digits = written.get(begin.map_or(0, |before| before + 1)..)?.trim_start_matches('-');
    let number = if written.starts_with('-') { &format!("-{digits}") } else { digits };
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return number.parse().map(Value::Unsigned).or_else(|_| number.parse::<i64>().map(Value::from)).ok();
    }
    number.parse().ok().filter(|number: &f64| number.is_finite()).map(Value::Float)
}

fn unevaluated(what: &str) -> Problem {
    Problem::unsupported(format!("{what} would have to be evaluated"))
}
