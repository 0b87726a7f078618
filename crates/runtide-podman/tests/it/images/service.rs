//! Images on a real service.

use runtide_core::{
    ErrorKind, ImageRef, InstanceId, Labels, RuntimeBackend,
    manager::{BuildContext, Effect, PruneOptions, RemoveOptions},
};
use tokio::io::AsyncReadExt;

use super::{
    build::{built, options},
    done, drained, images, reader, tar_of,
};
use crate::bench::Bench;

#[tokio::test]
async fn an_image_goes_with_its_last_name_unless_it_is_used() {
    let Some(bench) = Bench::new("image-names").await else { return };
    let images = images(&bench);
    let (one, two) = (format!("localhost/{}:1", bench.prefix), format!("{}-two", bench.prefix));
    let id = built(&bench, &[("Dockerfile", "FROM scratch\nCOPY a /\n"), ("a", &bench.prefix)], &[&one]).await;
    let (one, two) = (ImageRef::from(one), ImageRef::from(two));
    images.tag(&one, &two).await.unwrap();
    images.tag(&id, &two).await.unwrap();
    let listed = images.list().await.unwrap();
    let info = listed.iter().find(|info| info.id == id).unwrap();
    let mut tags = info.tags.clone();
    tags.sort_unstable();
    assert_eq!(
        tags,
        [ImageRef::from(format!("localhost/{two}:latest")), one.clone()],
        "a short name is one of this machine"
    );
    assert_eq!(info.labels.get("runtide.test"), Some(bench.prefix.as_str()));
    assert!(info.bytes.is_some_and(|bytes| bytes > 0) && info.created_at.is_some() && info.env.is_none());
    assert!(!info.digests.is_empty(), "{info:?}");
    for name in [&one, &two, &id] {
        assert!(images.exists(name).await.unwrap());
        assert_eq!(images.inspect(name).await.unwrap().id, id);
    }
    let missing = ImageRef::from(format!("localhost/{}-missing", bench.prefix));
    assert!(!images.exists(&missing).await.unwrap());
    assert_eq!(images.inspect(&missing).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(images.tag(&missing, &one).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(images.save(&[one.clone(), missing.clone()]).await.err().unwrap().kind(), ErrorKind::NotFound);

    assert_eq!(images.remove(&id).await.unwrap_err().kind(), ErrorKind::Conflict, "it has two names");
    for (name, effect) in [(&one, Effect::Changed), (&one, Effect::Unchanged), (&missing, Effect::Unchanged)] {
        assert_eq!(images.remove(name).await.unwrap(), effect);
    }
    let mut spec = bench.spec("user", "");
    spec.image = Some(two.clone());
    let user = bench.provision().create(&spec).await.unwrap();
    assert_eq!(images.remove(&two).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert!(images.exists(&two).await.unwrap(), "a conflict changes nothing");
    let _ = bench.lifecycle().remove(&user, RemoveOptions::default()).await.unwrap();
    assert_eq!(images.remove(&two).await.unwrap(), Effect::Changed);
    assert!(!images.exists(&id).await.unwrap());
}

#[tokio::test]
async fn a_prune_takes_what_nothing_uses_and_has_the_labels() {
    let Some(bench) = Bench::new("image-prune").await else { return };
    let images = images(&bench);
    let name = format!("localhost/{}:1", bench.prefix);
    let file = |text: &'static str| [("Dockerfile", "FROM scratch\nCOPY a /\n"), ("a", text)];
    let unnamed = built(&bench, &file("one"), &[]).await;
    let named = built(&bench, &file("two"), &[&name]).await;
    let mine = || [("runtide.test", bench.prefix.as_str())].into_iter().collect::<Labels>();
    let pruned = images.prune(PruneOptions::default().with_labels(mine())).await.unwrap();
    assert!(pruned.images.contains(&unnamed), "{pruned:?}");
    assert!(!images.exists(&unnamed).await.unwrap() && images.exists(&named).await.unwrap());
    let mut spec = bench.spec("user", "");
    spec.image = Some(ImageRef::from(name));
    let user = bench.provision().create(&spec).await.unwrap();
    let all = || PruneOptions::default().with_labels(mine()).with_named();
    assert!(!images.prune(all()).await.unwrap().images.contains(&named));
    let _ = bench.lifecycle().remove(&user, RemoveOptions::default()).await.unwrap();
    assert!(images.prune(all()).await.unwrap().images.contains(&named));
    assert!(!images.exists(&named).await.unwrap());
}

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/srv/web:/bin/false\n";

#[tokio::test]
async fn an_inspection_knows_the_user_and_its_home() {
    let Some(bench) = Bench::new("image-home").await else { return };
    let images = images(&bench);
    for (steps, user, home) in [
        ("COPY passwd /etc/passwd\n", None, Some("/root")),
        ("COPY passwd /etc/passwd\nUSER web:www\n", Some("web:www"), Some("/srv/web")),
        ("COPY passwd /etc/passwd\nUSER 77\n", Some("77"), None),
        ("ADD link.tar /etc/\nCOPY passwd /usr/passwd\nUSER web\n", Some("web"), Some("/srv/web")),
        ("COPY passwd /elsewhere\nVOLUME /data\n", None, None),
    ] {
        // A link from /etc/passwd.
        let mut link = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        link.append_link(&mut header, "passwd", "../usr/passwd").unwrap();
        let link = String::from_utf8(link.into_inner().unwrap()).unwrap();
        let dockerfile = format!("FROM scratch\n{steps}ENV A=1 B=\"x y\"\nENTRYPOINT [\"/e\", \"f\"]\nCMD [\"c\"]\n");
        let id = built(&bench, &[("Containerfile", &dockerfile), ("passwd", PASSWD), ("link.tar", &link)], &[]).await;
        let info = images.inspect(&id).await.unwrap();
        assert_eq!(info.user.as_deref(), user);
        assert_eq!(info.user_home.as_deref().map(|home| home.to_str().unwrap()), home, "{steps}");
        let words = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!((info.entrypoint, info.command), (words(&["/e", "f"]), words(&["c"])));
        let env = info.env.unwrap();
        assert!(env.contains(&"A=1".to_owned()) && env.contains(&"B=x y".to_owned()), "{env:?}");
        assert_eq!(
            images.remove(&id).await.unwrap(),
            Effect::Changed,
            "its container is removed, and nothing else uses it"
        );
    }
}

#[tokio::test]
async fn saved_images_come_back_with_their_names() {
    let Some(bench) = Bench::new("image-save").await else { return };
    let images = images(&bench);
    let names = ["a:1", "b:2"].map(|end| format!("localhost/{}-{end}", bench.prefix));
    let dockerfile = "FROM scratch\nCOPY a /\n";
    let one = built(&bench, &[("Dockerfile", dockerfile), ("a", "one")], &[&names[0]]).await;
    let two = built(&bench, &[("Dockerfile", dockerfile), ("a", "two")], &[&names[1]]).await;
    let refs = [ImageRef::from(names[0].as_str()), ImageRef::from(names[1].as_str())];
    let mut archive = Vec::new();
    images.save(&refs).await.unwrap().read_to_end(&mut archive).await.unwrap();
    for image in &refs {
        assert_eq!(images.remove(image).await.unwrap(), Effect::Changed);
    }
    let mut loaded = done(images.import(reader(archive.clone())).await).await;
    loaded.sort_unstable();
    assert_eq!(loaded, names);
    for (name, id) in [(&refs[0], &one), (&refs[1], &two)] {
        assert_eq!(images.inspect(name).await.unwrap().id, *id);
        assert_eq!(images.remove(name).await.unwrap(), Effect::Changed);
    }
    // One without a name comes back as its id.
    let unnamed = built(&bench, &[("Dockerfile", dockerfile), ("a", "three")], &[]).await;
    let mut alone = Vec::new();
    images.save(std::slice::from_ref(&unnamed)).await.unwrap().read_to_end(&mut alone).await.unwrap();
    assert_eq!(images.remove(&unnamed).await.unwrap(), Effect::Changed);
    assert_eq!(done(images.import(reader(alone)).await).await, [unnamed.to_string()]);
    assert_eq!(images.remove(&unnamed).await.unwrap(), Effect::Changed);

    let cut = archive[..archive.len() / 2].to_vec();
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    let mut other = tar::Builder::new(Vec::new());
    other.append_data(&mut header, "a", std::io::empty()).unwrap();
    let noise: Vec<u8> =
        (0..3_000_000_u32).map(|at| u8::try_from(at.wrapping_mul(2_654_435_761) >> 24).unwrap()).collect();
    let other = other.into_inner().unwrap();
    for (what, archive) in [("cut", cut), ("another archive", other), ("noise", noise), ("nothing", Vec::new())] {
        let (items, error) = drained(images.import(reader(archive)).await).await;
        let error = error.unwrap_or_else(|| panic!("{what}: {items:?}"));
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{what}: {error}");
    }
}

#[tokio::test]
async fn a_base_that_is_not_here_is_pulled_by_a_build_and_by_no_other_verb() {
    let Some(bench) = Bench::new("image-none").await else { return };
    let context = BuildContext::Tar(tar_of(&[("Dockerfile", "FROM 127.0.0.1:1/no/such:1\n")]));
    let (_, error) = drained(images(&bench).build(context, options(&bench)).await).await;
    assert_eq!(error.unwrap().kind(), ErrorKind::Unavailable, "no registry listens there");
    let missing = InstanceId::from("runtide-no-such-container");
    assert_eq!(bench.backend.inspect(&missing).await.unwrap_err().kind(), ErrorKind::NotFound);
}
