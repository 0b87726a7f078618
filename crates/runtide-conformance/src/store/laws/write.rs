//! S1, S2, S3 and S11: single writes.

use std::sync::Arc;

use runtide_core::{ApplyOutcome, Document, ErrorKind, Precondition, Resource, ResourceFormat, Revision, Selector};

use super::{Hand, Held, Tried, body, document, named, reference, told};
use crate::store::{Kept, StoreHarness, StoreLaw, StoreLawResult};

/// Every format.
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
        hand.equal("the digest of what was applied", &made.digest(), &runtide_core::Digest::of(&body.bytes))?;
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
                    "what was deleted not to be listed",
                    told(listed.first().map(|r| &**r)),
                )?;
                reads += 2;
            }
        }
    }
    too_large(&hand, h.largest()).await?;
    Ok(Kept::at(reads, "reads", Vec::new()))
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

/// Reads it alone and in a listing, as it was written and in each format; how many reads that were.
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
                hand.ensure(same, format!("{doing} to give {}", told(Some(&converted))), told(got.as_deref()))?;
            }
            (Err(error), Err(why)) => hand.equal(&doing, &error.kind(), &why.kind())?,
            (Ok(got), Err(why)) => return Err(hand.broken(format!("{doing} to say: {why}"), told(got.as_deref()))),
            (Err(error), Ok(_)) => return Err(hand.broken(format!("to {doing}"), error)),
        }
        let listed = hand.listed(&only, 0, format).await?.map_err(|error| hand.broken("to list", error))?.1;
        let shown = expected.shown(format);
        let same = matches!(&*listed, [one] if *one == shown);
        hand.ensure(same, format!("a listing of {}", told(Some(&shown))), told(listed.first().map(|one| &**one)))?;
        reads += 2;
    }
    Ok(reads)
}

/// What is too large is refused, and changes nothing.
async fn too_large(hand: &Hand, largest: usize) -> Held {
    let reference = named("large");
    let before = hand.put(&reference, &document(1, 1)).await?;
    let large = sized(largest + 1, 2);
    let call = hand.store.apply(&reference, large.clone(), Precondition::None);
    hand.refused(&format!("apply {}", body(&large)), ErrorKind::InvalidInput, call).await?;
    hand.shows(&reference, Some(&document(1, 1)), before.revision).await
}
