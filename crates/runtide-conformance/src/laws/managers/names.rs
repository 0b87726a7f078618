//! Hostile words: M8.

use runtide_core::{
    ErrorKind, ImageRef, InstanceId, RuntimeBackend,
    manager::{
        Credentials, Effect, ExecManager, ExecOptions, ImageManager, InstanceSpec, PullOptions, RemoveOptions,
        StopOptions,
    },
};

use super::{is_refused, lifecycle, objects::hostile_objects, ok, seen};
use crate::{
    Harness, Law, LawResult, Obstacle, Verdict, Violation, Workload, ensure,
    laws::{backend, running},
};

/// Words that break out of a shell command or a path that they are pasted into.
fn hostile() -> Vec<String> {
    let mut words: Vec<String> = [
        "quo\"te",
        "quo'te",
        "new\nline",
        "../escape",
        "a/../../b",
        "nul\0byte",
        "$(touch pwned)",
        "`touch pwned`",
        "; touch pwned",
        "a?force=1&v=1",
        "a#fragment",
        "a%2e%2e%2fb",
        "a b\tc",
        "-rf",
        "--help",
        "\u{202e}evil",
        "é",
        "\\",
        "",
        ".",
        "..",
        "{}",
        "*",
    ]
    .map(str::to_owned)
    .into();
    words.push("x".repeat(64 << 10));
    words
}

/// **M8 names.** Hostile names, labels, env and ids are refused with `InvalidInput` or carried through intact; nothing is
/// ever pasted into a shell or a path, and no other instance is touched.
pub async fn m8_names(h: &dyn Harness) -> LawResult {
    let mut without = Vec::new();
    let backend = backend(h).await?;
    ok(Law::M8, "connect", backend.connect().await)?;
    let bystander = running(h, "bystander").await?;
    let before = seen(h, &bystander).await?;
    hostile_ids(h, &*backend).await?;
    match backend.provision() {
        None => without.push("create: not supported".to_owned()),
        Some(_) => {
            for word in hostile() {
                hostile_specs(h, &*backend, &word).await?;
            }
        }
    }
    if let Some(images) = backend.images().filter(|_| backend.capabilities().images_manage.is_yes()) {
        hostile_images(images, backend.capabilities().images_pull.is_yes()).await?;
    }
    if let Some(exec) = backend.exec().filter(|_| backend.capabilities().exec_run.is_yes()) {
        hostile_arguments(h, exec).await?;
    }
    for word in hostile() {
        hostile_objects(&*backend, &word).await?;
    }
    let after = seen(h, &bystander).await?;
    ensure!(before == after, M8, format!("a bystander to be left alone: {before:?}"), format!("{after:?}"));
    Verdict::kept_without(without)
}

/// An id reaches only the instance with that very id.
async fn hostile_ids(h: &dyn Harness, backend: &dyn RuntimeBackend) -> Result<(), Violation> {
    let verbs = lifecycle(backend, Law::M8)?;
    let victim = running(h, "victim").await?;
    let mut words = hostile();
    words.extend([
        format!("{victim}/../{victim}"),
        format!("{victim}?x=1"),
        format!("./{victim}"),
        format!("{victim}/json#"),
        format!("../containers/{victim}"),
        format!("{victim}%00"),
        format!("{victim}\n"),
        "json".to_owned(),
        "prune".to_owned(),
    ]);
    for word in words {
        let shown: String = word.chars().take(40).collect();
        let id = InstanceId::from(word);
        let refusals = [
            ("inspect", backend.inspect(&id).await.map(drop)),
            ("start", verbs.start(&id).await.map(drop)),
            ("stop", verbs.stop(&id, StopOptions::default()).await.map(drop)),
            ("wait", verbs.wait(&id).await.map(drop)),
            ("rename", verbs.rename(&id, "runtide-m8").await.map(drop)),
        ];
        for (verb, result) in refusals {
            match result {
                Ok(()) => {
                    return Err(Violation::of(
                        Law::M8,
                        format!("{verb} of {shown:?}, which does not exist, to be refused"),
                        "Ok",
                    ));
                }
                Err(error) => {
                    let expected = format!("{verb} of {shown:?} to be `invalid_input` or `not_found`");
                    ensure!(is_refused(&error), M8, expected, error.to_string());
                }
            }
        }
        // An instance that is not there is removed already, unless the id is refused.
        let removed = verbs.remove(&id, RemoveOptions::default().with_kill()).await;
        let harmless = match &removed {
            Ok(effect) => *effect == Effect::Unchanged,
            Err(error) => is_refused(error),
        };
        ensure!(harmless, M8, format!("a removal of {shown:?} to do nothing"), format!("{removed:?}"));
        let there = seen(h, &victim).await?.is_some_and(|victim| victim.state.is_alive());
        ensure!(
            there,
            M8,
            format!("verbs with the id {shown:?} to touch no other instance"),
            "that another instance ended"
        );
    }
    Ok(())
}

/// No image has a hostile name: it is refused, or there is none.
async fn hostile_images(images: &dyn ImageManager, pulls: bool) -> Result<(), Violation> {
    let missing = ImageRef::from("runtide-m8-missing:1");
    for word in hostile() {
        let shown: String = word.chars().take(40).collect();
        let image = ImageRef::from(word);
        let mut refusals = vec![
            ("inspect", images.inspect(&image).await.map(drop)),
            ("tag", images.tag(&image, &missing).await),
            ("tag of a missing image", images.tag(&missing, &image).await),
        ];
        if pulls {
            let anonymous = PullOptions::default().with_credentials(Credentials::Anonymous);
            refusals.push(("pull", images.pull(&image, anonymous).await.map(drop)));
        }
        for (verb, result) in refusals {
            let Err(error) = result else {
                let expected = format!("{verb} of the image {shown:?} to be refused");
                return Err(Violation::of(Law::M8, expected, "Ok"));
            };
            let expected = format!("{verb} of the image {shown:?} to be `invalid_input` or `not_found`");
            ensure!(is_refused(&error), M8, expected, error.to_string());
        }
        let exists = images.exists(&image).await;
        let harmless = exists.as_ref().map_or_else(is_refused, |exists| !exists);
        ensure!(harmless, M8, format!("no image {shown:?}"), format!("{exists:?}"));
        let removed = images.remove(&image).await;
        let harmless = removed.as_ref().map_or_else(is_refused, |effect| *effect == Effect::Unchanged);
        ensure!(harmless, M8, format!("a removal of the image {shown:?} to do nothing"), format!("{removed:?}"));
    }
    Ok(())
}

/// A word as an argument of a command is refused, or reaches the command as it is.
async fn hostile_arguments(h: &dyn Harness, exec: &dyn ExecManager) -> Result<(), Violation> {
    let host = running(h, "host").await?;
    for word in hostile() {
        let Some(command) = h.echo(&word) else { break };
        let shown: String = word.chars().take(40).collect();
        let mut session = match exec.exec(&host, ExecOptions::default().with_argv(command.argv)).await {
            Ok(session) => session,
            Err(error) => {
                let refused = matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported);
                let expected = format!("{shown:?} as an argument to be `invalid_input` or carried through");
                ensure!(refused, M8, expected, error.to_string());
                continue;
            }
        };
        let mut said = Vec::new();
        while let Some(line) = session.output.next().await {
            said.extend_from_slice(&ok(Law::M8, "the output of a command", line)?.bytes);
        }
        let intact = command.stdout.flatten().eq(said.iter().copied());
        let said: String = String::from_utf8_lossy(&said).chars().take(80).collect();
        ensure!(intact, M8, format!("{shown:?} as an argument, intact"), format!("{said:?}"));
    }
    Ok(())
}

/// Creates specs with the word as their name, in a label, and in the environment.
async fn hostile_specs(h: &dyn Harness, backend: &dyn RuntimeBackend, word: &str) -> Result<(), Violation> {
    let plain = || h.spec("plain", &Workload::Idle);
    let mut named = plain()?;
    named.name = Some(word.to_owned());
    let mut labelled = plain()?;
    labelled.name = None;
    labelled.labels.insert("word", word);
    let mut keyed = plain()?;
    keyed.name = None;
    keyed.labels.insert(word, "value");
    let mut env = plain()?;
    env.name = None;
    env.env.insert("WORD".to_owned(), word.to_owned());
    for (field, spec) in [("name", named), ("label", labelled), ("label key", keyed), ("environment", env)] {
        carried(h, backend, field, word, &spec).await?;
    }
    Ok(())
}

async fn carried(
    h: &dyn Harness,
    backend: &dyn RuntimeBackend,
    field: &str,
    word: &str,
    spec: &InstanceSpec,
) -> Result<(), Violation> {
    let Some(provision) = backend.provision() else { return Ok(()) };
    let shown: String = word.chars().take(40).collect();
    let id = match provision.create(spec).await {
        Ok(id) => id,
        Err(error) => {
            let kind = error.kind();
            let refused = matches!(kind, ErrorKind::InvalidInput | ErrorKind::Unsupported);
            ensure!(
                refused,
                M8,
                format!("{shown:?} as {field} to be `invalid_input` or carried through"),
                error.to_string()
            );
            return Ok(());
        }
    };
    let Some(there) = seen(h, &id).await? else {
        return Err(Violation::of(Law::M8, format!("an instance with {shown:?} as {field}"), "Ok, and none is there"));
    };
    let intact = match field {
        "name" => word.is_empty() || there.name == word,
        "label" => there.labels.as_ref().is_none_or(|labels| labels.get("word").is_some_and(|value| value == word)),
        "label key" => {
            there.labels.as_ref().is_none_or(|labels| labels.get(word).is_some_and(|value| value == "value"))
        }
        _ => match h.environment(&id).await {
            Ok(env) => env.contains(&format!("WORD={word}")),
            Err(Obstacle::Unsupported(_)) => true,
            Err(failed) => return Err(failed.into()),
        },
    };
    ensure!(intact, M8, format!("{shown:?} as {field}, intact"), format!("'{}' with {:?}", there.name, there.labels));
    h.remove(&id).await?;
    Ok(())
}
