use super::*;
use crate::app::tests::{app, enter_cluster_of_one, member_of_one};
use crate::cluster::deployments::automatic_id;
use crate::cluster::executing::Executed;

fn projects(name: &str) -> BTreeSet<String> {
    BTreeSet::from([name.to_owned()])
}

fn held(member: &Member) -> Vec<String> {
    let leases = member.node.leases().list(Instant::now());
    leases.into_iter().map(|lease| lease.project).collect()
}

#[tokio::test]
async fn take_is_refused_while_another_deployment_has_the_project() {
    let directory = tempfile::tempdir().unwrap();
    let member = member_of_one(&directory).await;
    let first = Lock::take(&member, projects("shop"), "d1").await.unwrap();
    let two = BTreeSet::from(["blog".to_owned(), "shop".to_owned()]);
    let refused = Lock::take(&member, two, "d2").await.unwrap_err();
    assert_eq!(refused.code, Code::Refused);
    assert_eq!(
        refused.message,
        "another deployment of project shop is running on m1 (deployment d1, for 0 s)"
    );
    let hint = refused.hint.unwrap();
    assert!(
        hint.contains("`uc lock show`") && hint.contains("`uc lock release shop`"),
        "{hint}"
    );
    let other = Lock::take(&member, projects("blog"), "d3").await.unwrap();
    first.release().await;
    assert_eq!(held(&member), ["blog"]);
    other.release().await;
    Lock::take(&member, projects("shop"), "d2").await.unwrap();
    member.stop().await;
}

#[tokio::test]
async fn deployment_that_no_user_asked_for_makes_way() {
    let directory = tempfile::tempdir().unwrap();
    let member = member_of_one(&directory).await;
    let automatic = automatic_id();
    let lock = Lock::take(&member, projects("shop"), &automatic)
        .await
        .unwrap();
    let executed = Executed::default();
    let cancel = executed.cancel.clone();
    let executing = member.executing.add(&automatic, executed);
    let ends = async {
        cancel.cancelled().await;
        lock.release().await;
        drop(executing);
    };
    let takes = Lock::take(&member, projects("shop"), "d1");
    let ((), taken) =
        tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(ends, takes) })
            .await
            .unwrap();
    // One does not make way for another such one, which comes back later.
    let other = automatic_id();
    let refused = Lock::take(&member, projects("shop"), &other).await;
    assert_eq!(refused.unwrap_err().code, Code::Refused);
    taken.unwrap().release().await;
    member.stop().await;
}

#[tokio::test]
async fn lock_that_is_dropped_is_released() {
    let directory = tempfile::tempdir().unwrap();
    let member = member_of_one(&directory).await;
    // A deployment that fails, panics or loses its caller drops the lock.
    let lock = Lock::take(&member, projects("shop"), "d1").await.unwrap();
    assert!(!member.node.leases().close(Instant::now()));
    drop(lock);
    let released = async {
        while !held(&member).is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), released)
        .await
        .unwrap();
    member.stop().await;
}

#[tokio::test]
async fn deployment_leases_a_released_project_again_unless_another_one_has_it() {
    let directory = tempfile::tempdir().unwrap();
    let member = member_of_one(&directory).await;
    let first = Lock::take(&member, projects("shop"), "d1").await.unwrap();
    let released = locks::release(&member, "shop").await.unwrap();
    assert_eq!(released.locks.len(), 1);
    assert_eq!(released.locks[0].deployment_id, "d1");
    assert_eq!(released.locks[0].holders, ["m1"]);
    assert!(held(&member).is_empty());
    let second = Lock::take(&member, projects("shop"), "d2").await.unwrap();
    tokio::time::pause();
    tokio::time::sleep(RENEW * 2).await;
    let listed = locks::list(&member).await.locks;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].deployment_id, "d2");
    assert!(listed[0].confirmed);
    second.release().await;
    tokio::time::sleep(RENEW * 2).await;
    assert_eq!(locks::list(&member).await.locks[0].deployment_id, "d1");
    tokio::time::resume();
    first.release().await;
    let missing = locks::release(&member, "shop").await.unwrap_err();
    assert_eq!(missing.code, Code::NotFound);
    member.stop().await;
}

#[tokio::test]
async fn daemon_that_stops_leaves_the_leases_to_its_successor() {
    let directory = tempfile::tempdir().unwrap();
    let app = app(&directory);
    let member = enter_cluster_of_one(&app).await;
    let lock = Lock::take(&member, projects("shop"), "d1").await.unwrap();
    member.cancel.cancel();
    drop(lock);
    member.stop().await;
    assert_eq!(held(&member), ["shop"]);
    // The successor has no leases, and takes the project with the id of the deployment it resumes.
    let successor = enter_cluster_of_one(&app).await;
    assert!(held(&successor).is_empty());
    Lock::take(&successor, projects("shop"), "d1")
        .await
        .unwrap();
    successor.stop().await;
}
