"""httpx, by its HTTP/2 (h2), at a site of `site.py` through a proxy that looks into TLS. Prints `done`.

Arguments: the proxy, what vouches for its certificates, the site.
"""

import asyncio, hashlib, ssl, sys

import httpx

PROXY, TRUST, SITE = sys.argv[1:]
MUCH = bytes(range(256)) * 8192


async def main():
    trusting = ssl.create_default_context(cafile=TRUST)
    async with httpx.AsyncClient(http2=True, proxy=f"http://{PROXY}", verify=trusting, trust_env=False, timeout=30) as client:
        async def get(path, **options):
            answer = await client.get(f"{SITE}{path}", **options)
            assert answer.http_version == "HTTP/2", answer.http_version
            return answer

        assert (await get("/version")).text == "2"
        answers = await asyncio.gather(*(get(f"/bytes?{n}") for n in range(0, 300_000, 3_000)))
        assert [len(answer.content) for answer in answers] == list(range(0, 300_000, 3_000))
        assert (await get("/nothing")).status_code == 404
        answer = await client.post(f"{SITE}/upload", content=MUCH)
        assert answer.text == f"{len(MUCH)} {hashlib.sha256(MUCH).hexdigest()}"

        # Each event is there before the next one is made.
        async with client.stream("GET", f"{SITE}/events?httpx") as events:
            lines = events.aiter_lines()
            for step in ["one", "two", "three"]:
                await get(f"/step/{step}?httpx")
                assert await anext(lines) == f"data: {step}" and await anext(lines) == ""
            await get("/step/end?httpx")
            assert [line async for line in lines] == []

        # What is sent is answered while the rest is still to come.
        pieces = asyncio.Queue()

        async def body():
            while piece := await pieces.get():
                yield piece

        pieces.put_nowait(b"first")
        pieces.put_nowait(b"")
        answer = await client.post(f"{SITE}/both", content=body())
        assert answer.content == b"first"
    print("done")


asyncio.run(main())
