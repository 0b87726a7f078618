//! The heading of a document that has one block, as a job's file: its type, name, namespace and labels.

use hcl_edit::{
    expr::{Expression, ObjectKey},
    structure::{Attribute, Block, Body},
};

use super::{Outcome, Problem, Value, parse, read::expression, value::shown};

/// Blocks of a job's file that declare values for its expressions. They do not count as its one block.
const DECLARATIONS: [&str; 3] = ["locals", "variable", "variables"];

/// The block's type and label, and the attribute that names its namespace. All else may be expressions that only its runtime can
/// evaluate.
#[derive(Debug)]
pub(in crate::store) struct Heading {
    pub(in crate::store) kind: String,
    pub(in crate::store) name: Option<String>,
    pub(in crate::store) namespace: Option<String>,
}

/// Reads the heading of the one block at the top.
pub(in super::super) fn heading(document: &str) -> Outcome<Heading> {
    let body = parse(document)?;
    let block = the_block(&body)?;
    let namespace = match block.body.get_attribute("namespace").map(|attribute| &attribute.value) {
        None | Some(Expression::Null(_)) => None,
        Some(value) => Some(text(value).ok_or_else(|| Problem::invalid("its `namespace` is not a text"))?),
    };
    Ok(Heading {
        kind: block.ident.as_str().to_owned(),
        name: block.labels.first().map(|label| label.as_str().to_owned()),
        namespace,
    })
}

/// Returns the one block at the top that is no declaration; a declaration, if it is all that there is.
fn the_block(body: &Body) -> Outcome<&Block> {
    let blocks: Vec<&Block> = body.blocks().collect();
    let (declarations, others): (Vec<&Block>, Vec<&Block>) =
        blocks.into_iter().partition(|block| DECLARATIONS.contains(&block.ident.as_str()));
    match (others.as_slice(), declarations.as_slice()) {
        ([block], _) | ([], [block]) => Ok(block),
        ([], several) | (several, _) => {
            let count = several.len();
            Err(Problem::invalid(format!("it has {count} blocks at its top, but exactly one must name it")))
        }
    }
}

/// Reads the labels of the one block at the top: `meta { a = "b" }`, or `meta = { a = "b" }`.
pub(in super::super) fn labels(document: &str) -> Outcome<Vec<(String, String)>> {
    let body = parse(document)?;
    let block = the_block(&body)?;
    let mut found: Vec<(String, String)> = Vec::new();
    let mut put = |key: &str, value: &Expression| {
        let label = label(value);
        let label = label.ok_or_else(|| Problem::invalid(format!("the label {} is not a text", shown(key))))?;
        found.push((key.to_owned(), label));
        Ok(())
    };
    let mut count = 0;
    for block in block.body.get_blocks("meta") {
        count += 1;
        block.body.attributes().try_for_each(|Attribute { key, value, .. }| put(key.as_str(), value))?;
    }
    match block.body.get_attribute("meta").map(|attribute| &attribute.value) {
        None | Some(Expression::Null(_)) => {}
        Some(Expression::Object(object)) => {
            count += 1;
            for (key, value) in object {
                let key = match key {
                    ObjectKey::Ident(name) => name.as_str().to_owned(),
                    ObjectKey::Expression(key) => {
                        text(key).ok_or_else(|| Problem::invalid("a label's key is not a text"))?
                    }
                };
                put(&key, value.expr())?;
            }
        }
        Some(_) => return Err(Problem::invalid("its `meta` is not a map")),
    }
    if count > 1 {
        return Err(Problem::invalid("the key \"meta\" is there twice"));
    }
    Ok(found)
}

/// Returns the text of an expression that needs no evaluation.
fn text(value: &Expression) -> Option<String> {
    match expression(value, 0) {
        Ok(Value::Text(text)) => Some(text),
        _ => None,
    }
}

/// Returns the value of a label; HCL makes a text of a number or a boolean, because the values of `meta` are texts.
fn label(value: &Expression) -> Option<String> {
    match expression(value, 0).ok()? {
        Value::Text(text) => Some(text),
        Value::Bool(value) => Some(value.to_string()),
        Value::Unsigned(value) => Some(value.to_string()),
        Value::Negative(value) => Some(value.to_string()),
        Value::Float(value) => Some(value.to_string()),
        _ => None,
    }
}
