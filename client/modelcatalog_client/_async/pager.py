"""Listings that fetch as they are read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Generic, Protocol, TypeVar

from google.protobuf.message import Message

from modelcatalog_client._requests import following


class Page(Protocol):
    """What every list response has."""

    next_page_token: str


_Request = TypeVar("_Request", bound=Message)
_Request_contra = TypeVar("_Request_contra", contravariant=True)
_Page = TypeVar("_Page", bound=Page)
_Page_co = TypeVar("_Page_co", covariant=True)
_Item = TypeVar("_Item")


class FetchPage(Protocol[_Request_contra, _Page_co]):
    """The call behind a listing."""

    async def __call__(self, request: _Request_contra) -> _Page_co:
        """Fetches one page."""
        ...


class AsyncPager(Generic[_Item, _Page]):
    """A listing. Iterate over it for the items, over ``pages()`` for the responses that hold them.

    Nothing is requested before the iteration begins, and a page only when the one before has been read. Each new
    iteration starts the listing anew.
    """

    def __init__(
        self,
        fetch: FetchPage[_Request, _Page],
        request: _Request,
        items: Callable[[_Page], Iterable[_Item]],
        *,
        single_page: bool = False,
    ) -> None:
        self._fetch = fetch
        self._request = request
        self._items = items
        self._single_page = single_page

    async def __aiter__(self) -> AsyncIterator[_Item]:
        """The items of all pages. Raises what the list method raises."""
        async for page in self.pages():
            for item in self._items(page):
                yield item

    async def pages(self) -> AsyncIterator[_Page]:
        """The responses, e.g. for ``total_size`` or a ``next_page_token`` to keep."""
        request = self._request
        while True:
            page = await self._fetch(request)
            yield page
            if self._single_page or not page.next_page_token:
                return
            request = following(request, page.next_page_token)
