"""Why an item is shown: each rule, their order, and what a customer may see of a title."""

import pytest

from aftersales.corpora.interactions import Event, Interactions, Item
from aftersales.corpora.repurchase import repurchase_days
from aftersales.corpora.synthetic_interactions import generate
from aftersales.runtime.catalogue import CatalogueItem
from aftersales.runtime.events import DAY, PastEvent
from aftersales.runtime.reasons import MOST_CHARACTERS, Reasons, shortened


def product(
    item_id: str, title: str, product_type: str, category: str = "", brand: str = "", group: str = ""
) -> CatalogueItem:
    return CatalogueItem(
        item_id=item_id,
        title=title,
        category=category,
        kind="product",
        product_type=product_type,
        brand=brand,
        group=group,
    )


PHONE = product("P1", "乐途星 影像旗舰 手机", "手机", "手机通讯", "乐途星", "手机-1")
OTHER_PHONE = product("P2", "麦讯 手机", "手机", "手机通讯", "麦讯", "手机-2")
CASE = product("P3", "麦讯 手机壳", "手机壳", "手机通讯", "麦讯")
HEADPHONES = product("P4", "麦讯 耳机", "耳机", "影音数码", "麦讯")
TEA = product("P5", "山岚 茶叶", "茶叶", "食品", "山岚")
OTHER_TEA = product("P6", "云起 茶叶", "茶叶", "食品", "云起")
BARE = product("P7", "", "")
REPAIR = CatalogueItem(item_id="S1", title="寄修服务", category="售后服务", kind="service", product_type="repair")
EVERY = {"茶叶": 30.0}


def reason(
    item: CatalogueItem, *events: tuple[CatalogueItem, str, float | None], popular: bool = False
) -> tuple[str, str]:
    pairs = [(PastEvent(one.item_id, kind, days), one) for one, kind, days in events]  # type: ignore[arg-type]
    found = Reasons(pairs, EVERY, popular).of(item)
    return found.code, found.text


@pytest.mark.parametrize(
    ("item", "events", "expected"),
    [
        (OTHER_PHONE, [(PHONE, "buy", 9), (PHONE, "return", 2)], ("exchange", "因为你退换过「乐途星 影像旗舰 手机」")),
        (OTHER_PHONE, [(PHONE, "buy", 9)], ("same_type", "因为你买过「乐途星 影像旗舰 手机」")),
        (CASE, [(PHONE, "buy", 9), (PHONE, "return", 2)], ("same_category", "因为你买过「乐途星 影像旗舰 手机」")),
        (CASE, [(PHONE, "view", 9)], ("same_category", "因为你看过「乐途星 影像旗舰 手机」")),
        (CASE, [(PHONE, "cart", 9)], ("same_category", "因为你把「乐途星 影像旗舰 手机」加入过购物车")),
        (CASE, [(OTHER_PHONE, "buy", 9), (PHONE, "view", 1)], ("same_category", "因为你买过「麦讯 手机」")),
        (HEADPHONES, [(CASE, "review", 9)], ("same_brand", "因为你买过「麦讯 手机壳」")),
        (
            REPAIR,
            [(PHONE, "buy", 9), (PHONE, "complain", 2)],
            ("complaint", "因为你反馈过「乐途星 影像旗舰 手机」的问题"),
        ),
        (REPAIR, [(PHONE, "complain", 9), (CASE, "return", 2)], ("exchange", "因为你退换过「麦讯 手机壳」")),
        (REPAIR, [(REPAIR, "service", 9)], ("same_type", "因为你预约过「寄修服务」")),
        (REPAIR, [(TEA, "buy", 9)], ("history", "根据你最近的记录推荐")),
        (OTHER_TEA, [(TEA, "buy", 60), (TEA, "buy", 23.7)], ("replenish", "你 23 天前买过「山岚 茶叶」，该补货了")),
        (OTHER_TEA, [(TEA, "buy", 120)], ("replenish", "你 120 天前买过「山岚 茶叶」，该补货了")),
        (OTHER_TEA, [(TEA, "buy", 1500)], ("same_type", "因为你买过「山岚 茶叶」")),
        (
            OTHER_PHONE,
            [(PHONE, "return", 1500), (OTHER_PHONE, "buy", 2)],
            ("same_type", "因为你买过「麦讯 手机」"),
        ),
        (OTHER_PHONE, [(PHONE, "return", None)], ("exchange", "因为你退换过「乐途星 影像旗舰 手机」")),
        (REPAIR, [(TEA, "complain", 1500)], ("history", "根据你最近的记录推荐")),
        (REPAIR, [(TEA, "return", 91)], ("history", "根据你最近的记录推荐")),
        (OTHER_TEA, [(TEA, "buy", 22)], ("same_type", "因为你买过「山岚 茶叶」")),
        (OTHER_TEA, [(TEA, "buy", None)], ("same_type", "因为你买过「山岚 茶叶」")),
        (OTHER_TEA, [(TEA, "view", 40)], ("same_type", "因为你看过「山岚 茶叶」")),
        (BARE, [(BARE, "buy", 5), (PHONE, "buy", 3)], ("history", "根据你最近的记录推荐")),
        (PHONE, [], ("history", "根据你最近的记录推荐")),
    ],
)
def test_the_first_rule_that_fits(
    item: CatalogueItem, events: list[tuple[CatalogueItem, str, float | None]], expected: tuple[str, str]
) -> None:
    assert reason(item, *events) == expected


def test_popularity_says_nothing_of_a_history_that_was_not_used() -> None:
    assert reason(CASE, (PHONE, "buy", 9), popular=True) == ("popularity", "大家都在买")
    assert reason(REPAIR, popular=True) == ("popularity", "大家都在用")


@pytest.mark.parametrize(
    ("title", "shown"),
    [
        ("短标题", "短标题"),
        ("一" * MOST_CHARACTERS, "一" * MOST_CHARACTERS),
        ("一" * (MOST_CHARACTERS + 1), "一" * (MOST_CHARACTERS - 1) + "…"),
        ("乐途星 影像旗舰全网通智能手机 12GB+256GB 曜石黑", "乐途星 影像旗舰全网通智能手机…"),
        ("  两\n行\t标题 ", "两 行 标题"),
        ("「引号」", "『引号』"),
        ("一" * 14 + "👨\u200d👩\u200d👧" + "二", "一" * 14 + "…"),
        ("一" * 14 + "e\u0301" * 3, "一" * 14 + "…"),
        ("", "P7"),
    ],
)
def test_titles_are_shortened_at_a_character(title: str, shown: str) -> None:
    assert shortened(product("P7", title, "")) == shown


def test_types_that_are_bought_at_an_interval_are_found() -> None:
    found = repurchase_days(generate(seed=2, users=600))
    assert 20 < found["卫生巾"] < 36 and 12 < found["酸奶"] < 20
    assert not {"手机", "洗衣机", "女鞋", "数据线", "拼图", ""} & found.keys()


def test_few_or_uneven_gaps_are_no_interval() -> None:
    items = [Item("P1", product_type="茶叶"), Item("P2", product_type="唱片"), Item("P3")]

    def bought(item: str, days: list[int], users: int) -> list[Event]:
        return [Event(f"{item}{user}", item, "buy", DAY * (9000 + day)) for user in range(users) for day in days]

    rows = bought("P1", [0, 30], 20) + bought("P3", [0, 30], 20)
    rows += [one for user in range(20) for one in bought("P2", [0, 1 + user * user], 1)]
    assert repurchase_days(Interactions.of(items, rows)) == {"茶叶": 30.0}
    assert repurchase_days(Interactions.of(items, bought("P1", [0, 30], 19))) == {}
    twice_a_day = [event._replace(timestamp=event.timestamp % DAY + DAY) for event in rows]
    assert repurchase_days(Interactions.of(items, twice_a_day)) == {}
    untimed = Interactions.of(items, rows)
    assert repurchase_days(Interactions.of_tables(untimed.items, untimed.events, timed=False)) == {}
