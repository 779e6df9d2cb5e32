import cProfile, pstats, time, io
from tests.world import World
async def test_p(pg_url, servers, redis):
    for i in range(3):
        a=time.process_time(); w=time.monotonic()
        async with World.opened(pg_url, servers.redis_url) as x:
            b=time.process_time(); w2=time.monotonic()
        c=time.process_time(); w3=time.monotonic()
        print("open cpu %.3f wall %.3f; close cpu %.3f wall %.3f"%(b-a,w2-w,c-b,w3-w2))
    p=cProfile.Profile(); p.enable()
    async with World.opened(pg_url, servers.redis_url) as x: pass
    p.disable()
    s=io.StringIO(); pstats.Stats(p,stream=s).sort_stats('cumtime').print_stats(60); print(s.getvalue()[:9000])
