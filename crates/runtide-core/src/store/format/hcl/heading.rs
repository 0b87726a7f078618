//! The heading of a document that has one block: the type, name, namespace and labels of a job.

use hcl_edit::{
    expr::{Expression, ObjectKey},
    structure::{Block, Body},
};

use super::{Outcome, Problem, parse, value::shown};

/// The block's type and label, and the attributes that name a job. The rest of the block may be expressions that only its runtime
/// can evaluate.
#[derive(Debug)]
pub(in crate::store) struct Heading {
    pub(in crate::store) kind: String,
    pub(in crate::store) name: Option<String>,
    pub(in crate::store) namespace: Option<String>,
    pub(in crate::store) meta: Vec<(String, String)>,
}

/// Reads the heading of the one block at the top.
pub(in super::super) fn heading(text: &str) -> Outcome<Heading> {
    let body = parse(text)?;
    let mut blocks = body.blocks();
    let (Some(block), None) = (blocks.next(), blocks.next()) else {
        let count = body.blocks().count();
        return Err(Problem::invalid(format!("it has {count} blocks at its top, but exactly one must name it")));
    };
    let namespace = match block.body.get_attribute("namespace").map(|attribute| &attribute.value) {
        None | Some(Expression::Null(_)) => None,
        Some(value) => {
            Some(value.as_str().ok_or_else(|| Problem::invalid("its `namespace` is not a text"))?.to_owned())
        }
    };
    Ok(Heading {
        kind: block.ident.as_str().to_owned(),
        name: block.labels.first().map(|label| label.as_str().to_owned()),
        namespace,
        meta: meta(block)?,
    })
}

/// Reads the labels: `meta { a = "b" }`, or `meta = { a = "b" }`.
fn meta(block: &Block) -> Outcome<Vec<(String, String)>> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut put = |key: &str, value: &Expression| {
        let text = value.as_str();
        let text = text.ok_or_else(|| Problem::invalid(format!("the label {} is not a text", shown(key))))?;
        found.push((key.to_owned(), text.to_owned()));
        Ok(())
    };
    let inner = |body: &Body, put: &mut dyn FnMut(&str, &Expression) -> Outcome<()>| {
        body.attributes().try_for_each(|attribute| put(attribute.key.as_str(), &attribute.value))
    };
    let mut count = 0;
    for block in block.body.get_blocks("meta") {
        count += 1;
        inner(&block.body, &mut put)?;
    }
    match block.body.get_attribute("meta").map(|attribute| &attribute.value) {
        None | Some(Expression::Null(_)) => {}
        Some(Expression::Object(object)) => {
            count += 1;
            for (key, value) in object {
                let key = match key {
                    ObjectKey::Ident(name) => name.as_str(),
                    ObjectKey::Expression(key) => {
                        key.as_str().ok_or_else(|| Problem::invalid("a label's key is not a text"))?
                    }
                };
                put(key, value.expr())?;
            }
        }
        Some(_) => return Err(Problem::invalid("its `meta` is not a map")),
    }
    if count > 1 {
        return Err(Problem::invalid("the key \"meta\" is there twice"));
    }
    Ok(found)
}
