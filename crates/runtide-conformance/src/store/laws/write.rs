//! S1, S2, S3 and S11: single writes.

use std::sync::Arc;

use runtide_core::{
    Error, ErrorKind,
    store::{
        ApplyOutcome, Document, Precondition, Resource, ResourceFormat, ResourceRef, Revision, Selector,
        StoreWatchOptions,
    },
};

use super::{Hand, Held, Tried, body, describe, document, named, refer, reference};
use crate::{
    Verdict,
    store::{
        StoreHarness, StoreLaw, StoreLawResult,
        truth::{Change, Truth},
    },
};

/// All formats.
const FORMATS: [ResourceFormat; 5] =
    [ResourceFormat::Yaml, ResourceFormat::Json, ResourceFormat::Hcl, ResourceFormat::Cbor, ResourceFormat::Native];

/// Bodies of every format and of sizes up to the largest are made, replaced and removed, and read back after each step, by the
/// client that wrote and by another one, alone and in a listing, as they were written and in every format.
pub(crate) async fn s1_read_your_write(h: &dyn StoreHarness) -> StoreLawResult {
    let tried = Tried { law: StoreLaw::S1, h };
    let hand = tried.hand();
    let hands = [hand.clone(), tried.other_hand().await?];
    let mut reads = 0;
    for (n, body) in bodies(h.largest()).into_iter().enumerate() {
        let reference = reference(n);
        hand.shows(&reference, None, Revision(0)).await?;
        let made = hand.put(&reference, &body).await?;
        hand.equal("the outcome of a first apply", &made.outcome, &ApplyOutcome::Created)?;
        hand.equal("the digest of what was applied", &made.digest(), &runtide_core::store::Digest::of(&body.bytes))?;
        for hand in &hands {
            reads += reads_back(hand, &Resource::new(reference.clone(), body.clone(), made.revision)).await?;
        }
        let other = Document::new(body.format, [&body.bytes.slice(..body.bytes.len() / 2)[..], b"\n# other"].concat());
        let changed = hand.put(&reference, &other).await?;
        hand.equal("the outcome of a second apply", &changed.outcome, &ApplyOutcome::Changed)?;
        hand.ensure(changed.revision > made.revision, "revisions to rise", changed.revision)?;
        for hand in &hands {
            reads += reads_back(hand, &Resource::new(reference.clone(), other.clone(), changed.revision)).await?;
        }
        if n % 2 == 0 {
            let gone = hand.delete(&reference, Precondition::None).await?;
            hand.ensure(gone > Some(changed.revision), "a delete to have a revision", format!("{gone:?}"))?;
            for hand in &hands {
                hand.shows(&reference, None, Revision(0)).await?;
                let listed = hand.list(&Selector::only(&reference), 0).await?.1;
                hand.ensure(
                    listed.is_empty(),
                    "a deleted resource not to be listed",
                    describe(listed.first().map(|r| &**r)),
                )?;
                reads += 2;
            }
        }
    }
    too_large(&hand, h.largest()).await?;
    Ok(Verdict::looked_at(reads, "reads", Vec::new()))
}

fn bodies(largest: usize) -> Vec<Document> {
    let mut bodies = vec![
        document(0, 0),
        Document::yaml("kind: Thing\nmetadata:\n  name: a\n"),
        Document::yaml("# not a resource\n"),
        Document::hcl("job \"a\" {\n  type = \"service\"\n}\n"),
        Document::new(ResourceFormat::Cbor, vec![0xA1, 0x61, b'a', 0x01]),
        Document::new(ResourceFormat::Native, b"[Unit]\r\nDescription=\xC3\xA4\n".to_vec()),
        Document::new(ResourceFormat::Native, Vec::new()),
        Document::new(ResourceFormat::Native, vec![0]),
        Document::new(ResourceFormat::Native, (0..=255).collect::<Vec<u8>>()),
    ];
    for size in [4 << 10, 64 << 10, 1 << 20, largest] {
        bodies.extend((size <= largest).then(|| sized(size, 1)));
    }
    bodies
}

fn sized(size: usize, salt: u64) -> Document {
    let mut random = crate::wal::Random(salt);
    let words = std::iter::repeat_with(|| random.next().to_le_bytes()).take(size.div_ceil(8));
    let mut bytes: Vec<u8> = words.flatten().collect();
    bytes.truncate(size);
    Document::new(ResourceFormat::Native, bytes)
}

/// Reads it alone and in a listing, as it was written and in each format. Returns the number of reads.
async fn reads_back(hand: &Hand, expected: &Resource) -> Held<u64> {
    let expected = Arc::new(expected.clone());
    let reference = &expected.reference;
    let only = Selector::only(reference);
    let mut reads = 0;
    for format in std::iter::once(None).chain(FORMATS.map(Some)) {
        let doing = format!("get {reference} as {format:?}");
        let got = hand.ends(&doing, hand.store.get(reference, format)).await?;
        match (got, format.map_or(Ok(Arc::clone(&expected)), |format| expected.convert(format))) {
            (Ok(got), Ok(converted)) => {
                let same = got.as_ref() == Some(&converted);
                hand.ensure(same, format!("{doing} to give {}", describe(Some(&converted))), describe(got.as_deref()))?;
            }
            (Err(error), Err(why)) => hand.equal(&doing, &error.kind(), &why.kind())?,
            (Ok(got), Err(why)) => return Err(hand.broken(format!("{doing} to fail: {why}"), describe(got.as_deref()))),
            (Err(error), Ok(_)) => return Err(hand.broken(format!("to {doing}"), error)),
        }
        let listed = hand.listed(&only, 0, format).await?.map_err(|error| hand.broken("to list", error))?.1;
        let shown = expected.shown(format);
        let same = matches!(&*listed, [one] if *one == shown);
        hand.ensure(
            same,
            format!("a listing of {}", describe(Some(&shown))),
            describe(listed.first().map(|one| &**one)),
        )?;
        reads += 2;
    }
    Ok(reads)
}

/// A document that is too large is refused, and changes nothing.
async fn too_large(hand: &Hand, largest: usize) -> Held {
    let reference = named("large");
    let before = hand.put(&reference, &document(1, 1)).await?;
    let large = sized(largest + 1, 2);
    let call = hand.store.apply(&reference, large.clone(), Precondition::None);
    hand.refused(&format!("apply {}", body(&large)), ErrorKind::InvalidInput, call).await?;
    hand.shows(&reference, Some(&document(1, 1)), before.revision).await
}

/// Resources that differ in one part of their names, in case, in length, or in a way that some file system or prefix would not
/// notice, are made, read, listed by each part, replaced and removed, each without a trace in another. References that would
/// leave the root, or be confused with another one, cannot be made.
pub(crate) async fn s2_identity(h: &dyn StoreHarness) -> StoreLawResult {
    let tried = Tried { law: StoreLaw::S2, h };
    let hand = tried.hand();
    let references = lookalikes(&hand)?;
    let mut there: Vec<Resource> = Vec::new();
    for (n, reference) in references.iter().enumerate() {
        let body = document(2, n);
        let made = hand.put(reference, &body).await?;
        hand.ensure(
            made.outcome == ApplyOutcome::Created,
            format!("{reference} not to be there yet"),
            format!("{:?}", made.outcome),
        )?;
        there.push(Resource::new(reference.clone(), body, made.revision));
    }
    let mut checked = alone(&hand, &there, &references).await?;
    checked += selected(&hand, &there).await?;
    for (n, resource) in there.iter_mut().enumerate().filter(|(n, _)| n % 3 == 0) {
        resource.document = document(3, n);
        resource.revision = hand.put(&resource.reference, &resource.document).await?.revision;
    }
    checked += alone(&hand, &there, &references).await?;
    let mut kept = Vec::new();
    for (n, resource) in there.into_iter().enumerate() {
        if n % 2 == 0 {
            hand.delete(&resource.reference, Precondition::None).await?;
        } else {
            kept.push(resource);
        }
    }
    checked += alone(&hand, &kept, &references).await?;
    checked += hostile(&hand)?;
    Ok(Verdict::looked_at(checked, "looks", Vec::new()))
}

/// References that are not the same, each for its own reason.
fn lookalikes(hand: &Hand) -> Held<Vec<ResourceRef>> {
    let long = |n: usize| "a".repeat(n);
    let (g253, k63, n253, n255) = (long(253), long(63), long(253), long(255));
    let (n254, n252) = (long(254), long(252));
    let parts: Vec<(&str, &str, Option<&str>, &str)> = vec![
        ("apps", "Deployment", Some("shop"), "web"),
        ("", "Deployment", Some("shop"), "web"),
        ("apps.x", "Deployment", Some("shop"), "web"),
        ("app", "Deployment", Some("shop"), "web"),
        ("APPS", "Deployment", Some("shop"), "web"),
        ("apps", "deployment", Some("shop"), "web"),
        ("apps", "Deployments", Some("shop"), "web"),
        ("apps", "Deploy", Some("shop"), "web"),
        ("apps", "Deployment", None, "web"),
        ("apps", "Deployment", Some("_cluster"), "web"),
        ("apps", "Deployment", Some("cluster"), "web"),
        ("apps", "Deployment", Some("shop2"), "web"),
        ("apps", "Deployment", Some("shop-2"), "web"),
        ("apps", "Deployment", Some("sho"), "web"),
        ("apps", "Deployment", Some("Shop"), "web"),
        ("apps", "Deployment", Some("web"), "shop"),
        ("apps", "Deployment", Some("shop"), "Web"),
        ("apps", "Deployment", Some("shop"), "web2"),
        ("apps", "Deployment", Some("shop"), "web.json"),
        ("apps", "Deployment", Some("shop"), "web.tmp"),
        ("apps", "Deployment", Some("shop"), "we"),
        ("apps", "Deployment", Some("shop"), ".web"),
        ("apps", "Deployment", Some("shop"), "..web"),
        ("apps", "Deployment", Some("shop"), "web.."),
        ("apps", "Deployment", Some("shop"), "-web"),
        ("apps", "Deployment", Some("shop"), "~web"),
        ("apps", "Deployment", Some("shop"), "web:1"),
        ("apps", "Deployment", Some("shop"), "web-1"),
        ("apps", "Deployment", Some("shop"), "web_1"),
        ("apps", "Deployment", Some("shop"), "web@1"),
        ("apps", "Deployment", Some("shop"), "web+1"),
        ("apps", "Deployment", Some("shop"), "web\\1"),
        ("apps", "Deployment", Some("shop"), "web\\x2d1"),
        ("apps", "Deployment", Some("shop"), "web\\x5c1"),
        ("", "Node", None, "n1"),
        ("", "Node", None, "n10"),
        ("", "Node", Some("n1"), "n1"),
        (&g253, &k63, Some(&n253), &n255),
        (&g253, &k63, Some(&n253), &n254),
        (&g253, &k63, Some(&n252), &n255),
    ];
    let made = parts.into_iter().map(|(group, kind, namespace, name)| refer(group, kind, namespace, name));
    made.collect::<Result<_, _>>().map_err(|error| hand.broken("names that are allowed", error))
}

/// Reads each reference, present or absent.
async fn alone(hand: &Hand, there: &[Resource], references: &[ResourceRef]) -> Held<u64> {
    for reference in references {
        let expected = there.iter().find(|one| one.reference == *reference);
        let revision = expected.map(|one| one.revision).unwrap_or_default();
        hand.shows(reference, expected.map(|one| &one.document), revision).await?;
    }
    let count = hand.stats().await?.resource_count;
    hand.equal("the count of resources", &count, &(there.len() as u64))?;
    Ok(references.len() as u64)
}

/// Lists by every part of a reference that a selector has.
async fn selected(hand: &Hand, there: &[Resource]) -> Held<u64> {
    let mut selectors = vec![Selector::all(), Selector::default().with_kind("Nothing")];
    for Resource { reference, .. } in there {
        let namespace = reference.namespace().unwrap_or_default();
        selectors.extend([
            Selector::default().with_group(reference.group()),
            Selector::default().with_kind(reference.kind()),
            Selector::default().with_namespace(namespace),
            Selector::default().with_name(reference.name()),
            Selector::default().with_kind(reference.kind()).with_namespace(namespace),
            Selector::only(reference),
        ]);
    }
    for selector in &selectors {
        let items = hand.list(selector, 7).await?.1;
        let mut expected: Vec<_> = there.iter().filter(|one| selector.names(&one.reference)).collect();
        expected.sort_by(|a, b| a.reference.cmp(&b.reference));
        let same = items.iter().map(|item| &**item).eq(expected.iter().copied());
        let names = expected.iter().map(|one| one.reference.as_str()).collect::<Vec<_>>().join(", ");
        hand.ensure(same, format!("{selector:?} to list {names}"), super::listed_names(&items))?;
    }
    Ok(selectors.len() as u64)
}

/// Asserts that an invalid reference cannot be made, by any constructor.
fn hostile(hand: &Hand) -> Held<u64> {
    let long = "a".repeat(256);
    let parts = [
        "",
        ".",
        "..",
        "../x",
        "x/../y",
        "/etc/passwd",
        "a/b",
        "a//b",
        "a\0b",
        "a b",
        " a",
        "a\n",
        "\t",
        "ä",
        "a\u{202e}b",
        "*",
        "a%2fb",
        "a?b",
        "a#b",
        "a|b",
        "a;b",
        "$(a)",
        "`a`",
        "'a'",
        "\"a\"",
        "<a>",
        "{a}",
        "[a]",
        "a,b",
        "a=b",
        "a&b",
        "~",
        "...",
        "\u{ff0f}",
        &long,
    ];
    let mut checked = 0;
    for part in parts {
        // A group may be empty or full of dots: it is never a path alone.
        let dots = part.bytes().all(|byte| byte == b'.');
        let made = [
            (!dots).then(|| refer(part, "Kind", Some("space"), "name")),
            Some(refer("group", part, Some("space"), "name")),
            Some(refer("group", "Kind", Some(part), "name")),
            Some(refer("group", "Kind", Some("space"), part)),
            Some(format!("group/Kind/space/{part}").parse()),
            (!part.is_empty()).then(|| format!("group/Kind/{part}/name").parse()),
            Some(format!("group/{part}/space/name").parse()),
        ];
        for made in made.into_iter().flatten() {
            match made {
                Err(error) if error.kind() == ErrorKind::InvalidInput => checked += 1,
                Err(error) => return Err(hand.broken(format!("InvalidInput for {part:?}"), error)),
                Ok(made) => return Err(hand.broken(format!("no reference with {part:?}"), made)),
            }
        }
        let json = serde_json::json!({ "group": "group", "kind": "Kind", "namespace": "space", "name": part });
        let read = serde_json::from_value::<ResourceRef>(json);
        hand.ensure(read.is_err(), format!("no reference with {part:?}"), "one, from JSON")?;
        checked += 1;
    }
    Ok(checked)
}

/// Round after round, sixteen clients write to one resource at once, each on the condition that it is as they all saw it. Then
/// every precondition is tried where it holds and where it does not. A watcher sees the writes of the winners and no others.
pub(crate) async fn s3_compare_and_set(h: &dyn StoreHarness) -> StoreLawResult {
    let tried = Tried { law: StoreLaw::S3, h };
    let hand = tried.hand();
    let hands = [hand.clone(), tried.other_hand().await?];
    let mut watcher = hand.watch(&Selector::all(), StoreWatchOptions::default()).await?;
    let mut changes = Vec::new();
    let mut contested = 0;
    for round in 0..tried.pick(200, 20) {
        let reference = reference(round % 5);
        let before = hand.get(&reference).await?.map(|found| found.revision);
        let change = contest(&hands, &reference, before, round).await?;
        contested += 1;
        watcher.until(change.revision).await?;
        changes.push(change);
    }
    changes.extend(one_by_one(&hand).await?);
    changes.push(hand.mark(1).await?);
    let last = changes.last().map(|change| change.revision).unwrap_or_default();
    watcher.until(last).await?;
    let truth = hand.holds(Truth::of(changes))?;
    watcher.explained(&truth, true)?;
    Ok(Verdict::looked_at(contested * CLIENTS as u64, "conditional writes", Vec::new()))
}

const CLIENTS: usize = 16;

/// All clients write at once, and one wins. Returns its change.
async fn contest(hands: &[Hand], reference: &ResourceRef, before: Option<Revision>, round: usize) -> Held<Change> {
    let precondition = before.map_or(Precondition::Absent, Precondition::Is);
    let start = Arc::new(tokio::sync::Barrier::new(CLIENTS));
    let mut tasks = tokio::task::JoinSet::new();
    for (client, hand) in hands.iter().cycle().take(CLIENTS).enumerate() {
        let (hand, reference, start) = (hand.clone(), reference.clone(), Arc::clone(&start));
        tasks.spawn(async move {
            start.wait().await;
            // In every third round some clients delete it.
            if round % 3 == 2 && client % 2 == 0 && before.is_some() {
                let call = hand.store.delete(&reference, precondition);
                let gone = hand.ends("delete", call).await?.map(|gone| gone.map(|at| Change::new(at, reference, None)));
                return Ok(gone);
            }
            let document = document(client, 1_000 + round);
            let call = hand.store.apply(&reference, document.clone(), precondition);
            let applied = hand.ends("apply", call).await?;
            Ok(applied.map(|applied| Some(Change::new(applied.revision, reference, Some(document)))))
        });
    }
    let hand = hands.first().cloned().unwrap_or_else(|| unreachable!("there are two"));
    let (mut winners, mut losers) = (Vec::new(), Vec::new());
    while let Some(ended) = hand.ends("see all writers end", tasks.join_next()).await? {
        match ended.unwrap_or_else(|error| Err(hand.broken("no panic", error)))? {
            Ok(Some(change)) => winners.push(change),
            Ok(None) => return Err(hand.broken("a delete that won to have removed something", "nothing removed")),
            Err(error) => losers.push(error),
        }
    }
    let asked = format!("one of {CLIENTS} writes of {reference} with {precondition:?} to win");
    let found = winners.iter().map(|winner| winner.revision.to_string()).collect::<Vec<_>>().join(", ");
    let (Some(winner), 1) = (winners.pop(), winners.len() + 1) else {
        return Err(hand.broken(asked, format!("{} winners, at revisions {found}", winners.len() + 1)));
    };
    let actual = winner.document.as_ref().map(|_| winner.revision);
    for loser in &losers {
        conflict(&hand, loser, actual)?;
    }
    hand.shows(reference, winner.document.as_ref(), winner.revision).await?;
    Ok(winner)
}

/// Asserts that an error is a conflict with the actual revision.
fn conflict(hand: &Hand, error: &Error, actual: Option<Revision>) -> Held {
    let actual = actual.map_or_else(|| "absent".to_owned(), |actual| actual.to_string());
    let said = error.context().iter().find(|(key, _)| *key == "revision").map(|(_, value)| value.as_str());
    let fine = error.kind() == ErrorKind::Conflict && said == Some(actual.as_str());
    hand.ensure(fine, format!("`Conflict` with revision={actual}"), error)
}

/// Tries each precondition where it holds and where it does not. Returns the changes.
async fn one_by_one(hand: &Hand) -> Held<Vec<Change>> {
    let (there, absent) = (named("there"), named("absent"));
    let first = hand.apply(&there, &document(20, 0), Precondition::Absent).await?.revision;
    let second = hand.apply(&there, &document(20, 1), Precondition::Is(first)).await?.revision;
    let mut changes = vec![
        Change::new(first, there.clone(), Some(document(20, 0))),
        Change::new(second, there.clone(), Some(document(20, 1))),
    ];
    let wrong = [Precondition::Absent, Precondition::Is(first), Precondition::Is(Revision(second.0 + 1_000))];
    // A document that is already stored does not excuse a precondition that does not hold.
    for (precondition, n) in wrong.into_iter().flat_map(|wrong| [(wrong, 1), (wrong, 2)]) {
        let call = hand.store.apply(&there, document(20, n), precondition);
        let error = hand.refused(&format!("apply with {precondition:?}"), ErrorKind::Conflict, call).await?;
        conflict(hand, &error, Some(second))?;
    }
    for precondition in wrong {
        let call = hand.store.delete(&there, precondition);
        let error = hand.refused(&format!("delete with {precondition:?}"), ErrorKind::Conflict, call).await?;
        conflict(hand, &error, Some(second))?;
    }
    hand.shows(&there, Some(&document(20, 1)), second).await?;
    let is = Precondition::Is(second);
    let call = hand.store.apply(&absent, document(20, 2), is);
    conflict(hand, &hand.refused("apply to an absent resource", ErrorKind::Conflict, call).await?, None)?;
    let call = hand.store.delete(&absent, is);
    conflict(hand, &hand.refused("delete an absent resource", ErrorKind::Conflict, call).await?, None)?;
    hand.shows(&absent, None, Revision(0)).await?;
    hand.equal("a delete of an absent resource", &hand.delete(&absent, Precondition::Absent).await?, &None)?;
    let same = hand.apply(&there, &document(20, 1), is).await?;
    hand.equal("an apply of the stored document", &(same.outcome, same.revision), &(ApplyOutcome::Unchanged, second))?;
    let gone = hand.delete(&there, is).await?;
    let gone = gone.ok_or_else(|| hand.broken("a delete to remove the resource", "nothing removed"))?;
    changes.push(Change::new(gone, there.clone(), None));
    let call = hand.store.apply(&there, document(20, 3), is);
    conflict(hand, &hand.refused("apply to a deleted resource", ErrorKind::Conflict, call).await?, None)?;
    let again = hand.apply(&there, &document(20, 3), Precondition::Absent).await?.revision;
    changes.push(Change::new(again, there, Some(document(20, 3))));
    Ok(changes)
}

/// A stored document is applied again, by one client and by many at once, and an absent resource is deleted: no revision
/// changes, and a watcher gets no event. A change of a byte, or of the format alone, is a change.
pub(crate) async fn s11_unchanged(h: &dyn StoreHarness) -> StoreLawResult {
    let tried = Tried { law: StoreLaw::S11, h };
    let hand = tried.hand();
    let other = tried.other_hand().await?;
    let mut watcher = hand.watch(&Selector::all(), StoreWatchOptions::default()).await?;
    let mut changes = Vec::new();
    let mut repeated = 0;
    for n in 0..tried.pick(40, 8) {
        let reference = reference(n);
        let text = document(30, n);
        let mut spaced = text.clone();
        spaced.bytes = [&text.bytes[..], b"\n"].concat().into();
        let as_yaml = Document::yaml(text.bytes.clone());
        for (document, outcome) in [
            (&text, ApplyOutcome::Created),
            (&spaced, ApplyOutcome::Changed),
            (&text, ApplyOutcome::Changed),
            (&as_yaml, ApplyOutcome::Changed),
        ] {
            let applied = hand.put(&reference, document).await?;
            hand.equal(&format!("the outcome of {}", body(document)), &applied.outcome, &outcome)?;
            let revision = applied.revision;
            changes.push(Change::new(revision, reference.clone(), Some(document.clone())));
            repeated += again(tried, &[hand.clone(), other.clone()], &reference, document, revision).await?;
        }
        watcher.until(changes.last().map(|change| change.revision).unwrap_or_default()).await?;
    }
    let absent = named("absent");
    hand.equal("a delete of an absent resource", &hand.delete(&absent, Precondition::None).await?, &None)?;
    changes.push(hand.mark(1).await?);
    changes.push(hand.mark(2).await?);
    let truth = hand.holds(Truth::of(changes))?;
    watcher.until(truth.revision()).await?;
    watcher.explained(&truth, true)?;
    Ok(Verdict::looked_at(repeated, "repeated writes", Vec::new()))
}

/// Applies the stored document, one after the other and many at once. Returns the number of calls.
async fn again(
    tried: Tried<'_>,
    hands: &[Hand],
    reference: &ResourceRef,
    document: &Document,
    revision: Revision,
) -> Held<u64> {
    const AT_ONCE: usize = 6;
    let hand = tried.hand();
    let before = hand.stats().await?.revision;
    let unchanged = |applied: &runtide_core::store::Applied| {
        let found = (applied.outcome, applied.revision);
        hand.equal("an apply of the stored document", &found, &(ApplyOutcome::Unchanged, revision))
    };
    for hand in hands {
        unchanged(&hand.put(reference, document).await?)?;
        unchanged(&hand.apply(reference, document, Precondition::Is(revision)).await?)?;
    }
    let mut tasks = tokio::task::JoinSet::new();
    for hand in hands.iter().cycle().take(AT_ONCE) {
        let (hand, reference, document) = (hand.clone(), reference.clone(), document.clone());
        tasks.spawn(async move { hand.put(&reference, &document).await });
    }
    while let Some(ended) = hand.ends("see all writers end", tasks.join_next()).await? {
        unchanged(&ended.unwrap_or_else(|error| Err(hand.broken("no panic", error)))?)?;
    }
    hand.shows(reference, Some(document), revision).await?;
    if tried.h.is_alone() {
        hand.equal("the store's revision", &hand.stats().await?.revision, &before)?;
    }
    Ok((hands.len() * 2 + AT_ONCE) as u64)
}
