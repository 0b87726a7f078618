//! Decides writes: in groups, each with its own answer.

use std::collections::{BTreeSet, VecDeque};

use runtide_core::{
    Error, ErrorKind, Result,
    store::{LocalStore, PlannedChange, Precondition, ResourceRef, Revision},
};

use super::{
    super::{manager::again, name::UnitFileName},
    APPLY, ATTEMPTS, Ask, GROUP, Step, Trouble, Write, Writer,
};

impl<S: LocalStore> Writer<S> {
    /// Decides a group of writes, applies them together, and answers.
    pub(super) async fn write(&mut self, mut group: Vec<Write>) {
        for attempt in 1.. {
            if let Err(error) = self.look().await {
                return answer_all(group, &error);
            }
            let mut steps = Vec::new();
            let mut waiting = Vec::new();
            let mut same = Vec::new();
            for write in group {
                match self.decide(&write, &mut steps) {
                    Ok((PlannedChange::Nothing, revision)) => same.push((write, revision)),
                    Ok(decided) => waiting.push((write, decided)),
                    Err(error) => {
                        let _ = write.done.send(Err(error));
                    }
                }
            }
            self.answer_same(same).await;
            if steps.is_empty() {
                return;
            }
            let (state, revision) = self.after(&steps);
            let trouble = match self.carry_out(&steps, &state, revision).await {
                Ok(()) => {
                    self.show(steps, state, revision);
                    for (write, decided) in waiting {
                        let _ = write.done.send(Ok(decided));
                    }
                    return;
                }
                Err(trouble) => trouble,
            };
            self.forget(steps);
            let rest = waiting.into_iter().map(|(write, _)| write);
            group = match trouble {
                Trouble::Failed(error) => return answer_all(rest.collect(), &error),
                Trouble::Foreign if attempt < ATTEMPTS => rest.collect(),
                Trouble::Foreign => {
                    let message = "another program writes to the same unit files, again and again";
                    return answer_all(rest.collect(), &Error::new(ErrorKind::Conflict, APPLY, message));
                }
                Trouble::Refused(refused) => {
                    let rest: Vec<_> = rest.collect();
                    let before = rest.len();
                    let rest = self.without(rest, &refused);
                    match refused.first() {
                        // The refused unit belongs to no write: the group would be refused indefinitely.
                        Some((_, error)) if rest.len() == before && attempt >= ATTEMPTS => {
                            return answer_all(rest, error);
                        }
                        _ => rest,
                    }
                }
            };
        }
    }

    /// Answers writes that change nothing. Another program may have written the file, without a reload of the manager.
    async fn answer_same(&mut self, same: Vec<(Write, Revision)>) {
        let manager = self.manager.clone().filter(|_| self.stale || self.unread);
        let applied = same.iter().any(|(write, _)| write.fresh.is_some());
        let read = match &manager {
            Some(_) if applied => self.reload().await,
            _ => Ok(()),
        };
        for (write, revision) in same {
            let taken = match (&read, &write.fresh, &manager) {
                (Err(error), Some(_), _) => Err(again(error)),
                (Ok(()), Some(body), Some(manager)) => {
                    let checked = manager.check(body.file.unit_name(), &[&body.file]).await;
                    checked.map_err(|error| error.with_context("resource", &write.reference))
                }
                _ => Ok(()),
            };
            let _ = write.done.send(taken.map(|()| (PlannedChange::Nothing, revision)));
        }
    }

    /// Answers the refused writes, and returns the others.
    fn without(&self, group: Vec<Write>, refused: &[(String, Error)]) -> Vec<Write> {
        let mut rest = Vec::new();
        for write in group {
            let unit = self.unit_of(&write);
            match refused.iter().find(|(name, _)| Some(name) == unit.as_ref()) {
                Some((_, error)) => {
                    let error = again(error).with_context("resource", &write.reference);
                    let _ = write.done.send(Err(error));
                }
                None => rest.push(write),
            }
        }
        rest
    }

    fn unit_of(&self, write: &Write) -> Option<String> {
        let file = write.fresh.as_ref().map(|body| body.file.clone());
        let file = file.or_else(|| self.shared.form.file(&write.reference).ok())?;
        Some(file.unit_name().to_owned())
    }

    /// Decides one write. A unit is deleted with its drop-ins, which come before it.
    fn decide(&self, write: &Write, steps: &mut Vec<Step>) -> Result<(PlannedChange, Revision)> {
        let front = &self.shared.front;
        let reference = &write.reference;
        if let Some(body) = &write.fresh {
            self.free(&body.file, reference)?;
            let planned = front.prepare(reference, Some(body.document.clone()), write.precondition)?;
            let decided = (planned.change, planned.revision);
            if planned.change != PlannedChange::Nothing {
                steps.push(Step { planned, file: body.file.clone(), text: Some(body.text.clone()) });
            }
            return Ok(decided);
        }
        let held = self.files.iter().find(|(_, held)| held.reference == *reference);
        let drop_ins = held.filter(|(file, _)| file.drop_in_name().is_none()).into_iter().flat_map(|(file, _)| {
            let of_it = |other: &UnitFileName| other.drop_in_name().is_some() && other.unit_name() == file.unit_name();
            self.files.iter().filter(move |(other, _)| of_it(other))
        });
        let mut gone = Vec::new();
        // First it is decided if it may be removed at all; its own revision is the last.
        let allowed = front.prepare(reference, None, write.precondition)?;
        if allowed.change == PlannedChange::Nothing {
            return Ok((allowed.change, allowed.revision));
        }
        front.forget(allowed);
        for (file, held) in drop_ins.chain(held) {
            let condition = if held.reference == *reference { write.precondition } else { Precondition::None };
            match front.prepare(&held.reference, None, condition) {
                Ok(planned) => gone.push(Step { planned, file: file.clone(), text: None }),
                Err(error) => {
                    self.forget(gone);
                    return Err(error);
                }
            }
        }
        let last = gone.last().map(|step| (step.planned.change, step.planned.revision));
        steps.extend(gone);
        last.ok_or_else(|| Error::new(ErrorKind::Unexpected, APPLY, "the resource has no file"))
    }

    /// Checks that a file is free for this resource.
    pub(super) fn free(&self, file: &UnitFileName, reference: &ResourceRef) -> Result<()> {
        let conflict = |why: String| {
            Err(Error::new(ErrorKind::Conflict, APPLY, why)
                .with_context("resource", reference)
                .with_context("file", file))
        };
        if self.files.get(file).is_some_and(|held| held.reference != *reference) {
            return conflict("the file is another resource's".to_owned());
        }
        let name = file.to_string();
        let folder = file.drop_in_name().map(|_| file.drop_ins());
        let skipped = self.shared.skipped();
        match skipped.iter().find(|(other, _)| *other == name || Some(other) == folder.as_ref()) {
            Some((_, why)) => conflict(format!("the file there is not this store's: {why}")),
            None => Ok(()),
        }
    }
}

/// Takes the writes that can be applied together: one for each unit and its drop-ins. Empty if another request comes
/// first.
pub(super) fn take_group(queue: &mut VecDeque<Ask>) -> Vec<Write> {
    let (mut group, mut touched) = (Vec::new(), BTreeSet::new());
    while group.len() < GROUP {
        match queue.pop_front() {
            Some(Ask::Write(write)) => {
                // A delete may remove drop-ins that it does not name.
                let unit = touch(&write);
                if !touched.insert(unit) {
                    queue.push_front(Ask::Write(write));
                    break;
                }
                group.push(write);
            }
            Some(other) => {
                queue.push_front(other);
                break;
            }
            None => break,
        }
    }
    group
}

/// The part that two writes in one group must not share.
fn touch(write: &Write) -> String {
    let reference = &write.reference;
    match reference.kind().strip_suffix(".d") {
        Some(kind) => ["", kind, "", reference.namespace().unwrap_or_default()].join("/"),
        None => reference.to_string(),
    }
}

fn answer_all(group: Vec<Write>, error: &Error) {
    for write in group {
        let _ = write.done.send(Err(again(error)));
    }
}
